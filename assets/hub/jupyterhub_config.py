"""A JupyterHub that serves sdteach to a class from one machine; root runs it after `install` (see lessons/classroom.md).

Each student is a user of the machine, of a home of their own. What a student may take is limited by the kernel for each of their
processes, which needs neither containers nor systemd.
"""

import os
import pwd
import subprocess
import sys

c = get_config()

STUDENTS, SRV = 30, "/srv/sdteach"
MEMORY = 3 * 2**30  # bytes that one process may hold for itself: a server, or a kernel. Beyond it torch says that memory ran out
THREADS = 300  # processes and threads of one student; a server and a kernel take some 30

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["CLASS_PASSWORD"]
c.Authenticator.allowed_users = {f"student{number:02}" for number in range(1, STUDENTS + 1)}


def a_user_of_the_machine(spawner):
    try:
        pwd.getpwnam(spawner.user.name)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "-K", "HOME_MODE=0700", "--shell", "/bin/bash", spawner.user.name], check=True)


c.JupyterHub.spawner_class = "localprocess"
c.Spawner.pre_spawn_hook = a_user_of_the_machine
START = f'cp -n {SRV}/lessons/*.ipynb . ; exec nice prlimit --data={MEMORY} --nproc={THREADS} {sys.prefix}/bin/jupyterhub-singleuser "$@"'
c.Spawner.cmd = ["bash", "-c", START, "start"]
c.Spawner.args = ["--ServerApp.shutdown_no_activity_timeout=3600", "--MappingKernelManager.cull_idle_timeout=1200",
                  "--MappingKernelManager.cull_interval=60"]  # fmt: skip
c.Spawner.default_url = "/lab/tree/00_the_whole_trip.ipynb"
c.Spawner.environment = {
    "SDTEACH_MODEL": f"{SRV}/picturebook",  # in float32, so that every kernel maps the one file instead of holding a copy
    "OMP_NUM_THREADS": "1",  # one core a student; else each kernel takes all
    "HF_HUB_OFFLINE": "1",
}
c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # thirty start at once, when the lesson begins
