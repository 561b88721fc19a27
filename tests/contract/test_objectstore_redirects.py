"""An endpoint that sends its client elsewhere: nothing of what answers there is repeated."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from strongroom.dataplane.objectstore import StoreUnavailable, open_store

SECRET = "zq7-of-the-machine"


@contextmanager
def server(answer: "type[BaseHTTPRequestHandler]") -> Iterator[str]:
    listening = HTTPServer(("127.0.0.1", 0), answer)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("s3://bucket-1?region=x&endpoint=", {"accessKeyId": "a", "secretAccessKey": "b"}),
        ("az://account1/container?endpoint=", {"sasToken": "sv=1&sig=any"}),
    ],
)
async def test_the_answer_of_a_service_that_an_endpoint_redirects_to_is_not_repeated(
    url: str, credentials: dict[str, str]
) -> None:
    asked: list[str] = []

    class Metadata(_Quiet):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

    with server(Metadata) as metadata:

        class Redirect(_Quiet):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{metadata}/latest/meta-data")
                self.end_headers()

        with server(Redirect) as endpoint, pytest.raises(StoreUnavailable) as raised:
            await open_store(url + endpoint, credentials=credentials)
    assert len(asked) == 1
    assert "AWS4" not in asked[0]  # a SAS is in the URL, which the endpoint has; it goes on as the Referer
    assert SECRET not in str(raised.value)
    assert "invalid list response" in raised.value.message
