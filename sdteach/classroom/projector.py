"""The projector app's server: voila on this machine alone, for whoever has the address with its token, with one kernel."""

import asyncio
import webbrowser
from contextlib import suppress
from pathlib import Path

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.routing import HostMatches
from traitlets.config import Config
from voila.app import Voila

from ..files import data_of

# Under any other name of this machine it may be another site's page that asks, whose name was bound anew (DNS rebinding).
HOSTS = HostMatches(r"(localhost|127\.0\.0\.1|\[::1\])$")


class OneKernel(AsyncMappingKernelManager):
    """One model in memory: the page that is opened last has it, those opened before say that they have lost theirs."""

    def __init__(self, **options):
        super().__init__(**options)
        self._turn = asyncio.Lock()

    async def start_kernel(self, **options):
        async with self._turn:
            await self.shutdown_all(now=True)
            return await super().start_kernel(**options)


class Client(AsyncKernelClient):
    """Goes on where a kernel ended before it was ready: the page is written to its end then, and says so. Voila would write no more."""

    async def wait_for_ready(self, timeout=None):
        with suppress(RuntimeError):
            await super().wait_for_ready(timeout)


class Projector(Voila):
    """Voila with the settings in projector.toml, which opens the browser at the address that has the token."""

    def init_handlers(self):
        return [(HOSTS, super().init_handlers())]

    def launch_browser(self):
        """By way of a file that only this user can read: what a browser was started with, everybody on the machine can see."""
        page = Path(self.connection_dir, "open.html")
        page.write_text(f'<meta http-equiv="refresh" content="0; url={self.display_url}">', "utf-8")
        webbrowser.open(page.as_uri(), self.webbrowser_open_new)


if __name__ == "__main__":
    config = Config(data_of(__file__))
    # A page that is left asks for the end of its kernel with a cookie, which it has from being asked for here.
    config.VoilaConfiguration.prelaunch_hook = lambda request, **_: request.xsrf_token and None
    Projector.launch_instance(config=config)
