package driver

import (
	"context"
	"log/slog"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// GetInfo tells a kubelet which driver stands behind the registration socket.
func (d *Driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: d.Name, Endpoint: d.Endpoint, SupportedVersions: []string{Version},
	}, nil
}

// NotifyRegistrationStatus takes the kubelet's verdict.
func (d *Driver) NotifyRegistrationStatus(
	_ context.Context, verdict *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	slog.Info("kubelet answered the registration", "registered", verdict.GetPluginRegistered(), "error", verdict.GetError())
	return &registration.RegistrationStatusResponse{}, nil
}
