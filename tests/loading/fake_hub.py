"""A hub on this machine: folders served as the real one serves repositories, as far as its client asks."""

import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(repositories, broken_off=(), missing=()):
    """Serve `repositories`, hub id -> folder, or the status to answer. Yields the address and the list of requests.

    The first time that one of the files in `broken_off` is asked for, only half of it comes. Those in `missing` are listed but gone.
    """
    requests, breaking = [], set(broken_off)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = self.path.split("?")[0]
            requests.append((self.command, path))
            found = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w.-]+?)(?:/(revision|tree|resolve)/([\w-]+)(?:/(.*))?)?", path)
            given = repositories.get(found[1]) if found else None
            if given is None or isinstance(given, int):
                code = {401: "GatedRepo", 404: "RepoNotFound"}.get(given or 404)
                self.reply(given or 404, b"{}", {"X-Error-Code": code} if code else {})
            elif found[2] == "resolve":
                self.file(given / found[4], found[4], body)
            else:
                files = [path for path in sorted(given.rglob("*")) if path.is_file()]
                entries = [
                    {"type": "file", "path": str(path.relative_to(given)), "size": path.stat().st_size, "oid": etag(path)} for path in files
                ]
                info = {"id": found[1], "sha": COMMIT, "siblings": [{"rfilename": entry["path"]} for entry in entries], "tags": []}
                self.reply(200, json.dumps(entries if found[2] == "tree" else info).encode(), {"Content-Type": "application/json"})

        def file(self, path, name, body):
            if not path.is_file() or name in missing:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            data = path.read_bytes()
            headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
            if not body:
                self.reply(200, b"", headers, len(data))
                return
            if name in breaking:
                breaking.discard(name)
                self.reply(200, data[: len(data) // 2], headers, len(data))
                self.close_connection = True
                return
            self.reply(200, data, headers)

        def reply(self, status, data, headers=None, length=None):
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data) if length is None else length)} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def etag(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()
