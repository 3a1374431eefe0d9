"""What a class takes on a JupyterHub: several students at once run a lesson on the hub of `assets/hub`; their memory, and their limits.

As root, after `assets/hub/install`: `/opt/sdteach/bin/python tests/benchmarks/hub.py 5 00_the_whole_trip`.
"""

import asyncio
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

CONFIG = Path(__file__).parents[2] / "assets" / "hub" / "jupyterhub_config.py"
PORT, TOKEN, PICTUREBOOK = 18000, uuid.uuid4().hex, "/srv/sdteach/picturebook"
BESIDE = f"""
c.JupyterHub.bind_url = "http://127.0.0.1:{PORT}"
c.JupyterHub.hub_port, c.ConfigurableHTTPProxy.api_url = {PORT + 1}, "http://127.0.0.1:{PORT + 2}"
c.JupyterHub.services = [{{"name": "class", "api_token": "{TOKEN}"}}]
c.JupyterHub.load_roles = [{{"name": "class", "services": ["class"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}]
"""
PROBES = {
    "more memory than is allowed": "import torch; torch.ones(2**30)",
    "writing on the checkpoint": f"open({PICTUREBOOK + '/new'!r}, 'w')",
    "reading another's home": "import os; [os.listdir(f'/home/{name}') for name in os.listdir('/home') if name != os.environ['USER']]",
    "painting afterwards": "assert sdteach.generate(model, 'a red car', steps=2).complete",
}


def asked(path, method="GET", body=None):
    data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"Authorization": f"token {TOKEN}"}, method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read() or "null")


async def run(socket, code):
    """Run code in a kernel; the error that it ends with, or "fine"."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "class", "username": "class", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
    await socket.write_message(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
    told = "fine"
    while True:
        message = json.loads(await socket.read_message())
        if message["parent_header"].get("msg_id") == header["msg_id"]:
            if message["msg_type"] == "error":
                told = f"{message['content']['ename']}: {message['content']['evalue']}"[:90]
            if message["content"].get("execution_state") == "idle":
                return told


async def student(name, lesson):
    """A student's lesson from top to bottom; how its cells and the probes ended."""
    await asyncio.to_thread(asked, f"/hub/api/users/{name}/server", "POST")
    while not (await asyncio.to_thread(asked, f"/hub/api/users/{name}"))["server"]:
        await asyncio.sleep(1)
    notebook = await asyncio.to_thread(asked, f"/user/{name}/api/contents/{lesson}.ipynb")
    kernel = await asyncio.to_thread(asked, f"/user/{name}/api/kernels", "POST", {"name": "python3"})
    address = f"ws://127.0.0.1:{PORT}/user/{name}/api/kernels/{kernel['id']}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"token {TOKEN}"}), max_message_size=2**28)
    cells = [cell["source"] for cell in notebook["content"]["cells"] if cell["cell_type"] == "code"]
    failed = {told for cell in cells if (told := await run(socket, cell)) != "fine"}
    return failed or "every cell ran", {what: await run(socket, how) for what, how in PROBES.items()}


def memory(names):
    """MiB of each kernel and server: resident, its share of that (PSS), its own; peak; data; of the checkpoint's file: resident, own."""
    users = {pwd.getpwnam(name).pw_uid for name in names}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid not in users:
                continue
            kind = next((kind for kind in ("ipykernel", "singleuser") if kind in (process / "cmdline").read_text()), None)
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            sums, here = dict.fromkeys(("Rss", "Pss", "Private_Dirty", "file Rss", "file Private_Dirty"), 0), False
            for line in (process / "smaps").read_text().splitlines():
                key, value, *_ = line.split()
                if not key.endswith(":"):
                    here = PICTUREBOOK in line
                elif key[:-1] in sums:
                    sums[key[:-1]] += int(value)
                    if here and f"file {key[:-1]}" in sums:
                        sums[f"file {key[:-1]}"] += int(value)
            if kind:
                peaks = {key: int(status[key].split()[0]) for key in ("VmHWM", "VmData")}
                yield kind, {key: kib >> 10 for key, kib in (sums | peaks).items()}
        except (FileNotFoundError, ProcessLookupError):
            pass


async def main(count, lesson):
    names = [f"student{number:02}" for number in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.py")
        config.write_text(CONFIG.read_text() + BESIDE)
        environment = os.environ | {"CLASS_PASSWORD": TOKEN, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
        with Path(folder, "log").open("w") as log:
            hub = subprocess.Popen([f"{sys.prefix}/bin/jupyterhub", "-f", config], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            await asyncio.sleep(20)
            for told in await asyncio.gather(*(student(name, lesson) for name in names)):
                print(*told)
            for kind, sums in memory(names):
                print(kind, sums)
            for name in names:
                asked(f"/hub/api/users/{name}/server", "DELETE")
        finally:
            hub.send_signal(signal.SIGINT)
            hub.wait(60)


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
