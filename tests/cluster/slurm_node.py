"""A Slurm of one node, this machine, with all of its files in one folder; it needs no root and leaves no trace."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=5,batch_sched_delay=0,defer
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmNode:
    """Its daemons; `environment` is what commands need to find them."""

    def __init__(self, folder: Path, cpus: int = 4) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen]()
        self.path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        if missing := [name for name in PROGRAMS if shutil.which(name, path=self.path) is None]:
            raise RuntimeError(f"no {', '.join(missing)} here; on Debian: apt-get install slurm-wlm munge")
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            ports = [one.getsockname()[1], two.getsockname()[1]]
        host, user = socket.gethostname().partition(".")[0], pwd.getpwuid(os.getuid()).pw_name
        cpus = min(cpus, os.cpu_count() or 1)
        (folder / "slurm.conf").write_text(CONF.format(host=host, user=user, folder=folder, ports=ports, cpus=cpus))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        self.environment = {**os.environ, "PATH": self.path, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> SlurmNode:
        at = self.folder
        places = (
            "key-file=munge.key",
            "socket=munge.socket",
            "pid-file=munge.pid",
            "log-file=munge.log",
            "seed-file=seed",
        )
        flags = [f"--{name}={at / file}" for name, file in (place.split("=") for place in places)]
        self.start("munged", "--foreground", "--force", "--num-threads=2", *flags)
        self.until(lambda: (at / "munge.socket").exists(), "munged")
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D")
        self.until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t"), "slurmctld and slurmd")
        return self

    def __exit__(self, *error: object) -> None:
        self.run("scancel", f"--user={pwd.getpwuid(os.getuid()).pw_name}", "--state=RUNNING", "--signal=KILL")
        for process in reversed(self.processes):
            started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            for child in started:
                if child.is_running():
                    child.kill()

    def start(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.out").open("w")
        command = [str(shutil.which(program, path=self.path)), *arguments]
        self.processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def run(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def until(self, ready, what: str) -> None:
        end = time.monotonic() + 60
        while not ready():
            if time.monotonic() > end or any(process.poll() is not None for process in self.processes):
                logs = "\n".join(file.read_text(errors="replace")[-1500:] for file in self.folder.glob("*.out"))
                raise RuntimeError(f"{what} did not start:\n{logs}")
            time.sleep(0.2)
