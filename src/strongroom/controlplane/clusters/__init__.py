"""The control plane's way into clusters: connecting, tokens, the extension, trusted access."""
