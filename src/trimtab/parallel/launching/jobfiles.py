"""Ready job files that start `trimtab train` under torchrun: an sbatch script, a Kubernetes Job. Text only.

Both restart lost processes, pass the end of their time on as SIGTERM (upon which a checkpoint is saved), and keep
their files on storage that all machines see, so that starting them again goes on from there.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from trimtab.spec.errors import UsageError

_PORT = 29500
# Where a pod sees the claim.
_MOUNT = "/trimtab"
# What the processes get to save before torchrun kills them, and torchrun before the cluster does.
_SAVE_SECONDS, _GRACE_SECONDS = 110, 120


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """`processes` in all, on `nodes` machines, with `cores` and `gpus` each (per process).

    `arguments` follow `trimtab train RECIPE`. The run's folder is NAME-run: where the job was submitted (Slurm), or
    on the mounted claim (Kubernetes).
    """

    name: str
    recipe: Path
    processes: int
    nodes: int = 1
    cores: int = 1
    gpus: int = 0
    restarts: int = 3
    arguments: tuple[str, ...] = ()

    @property
    def per_node(self) -> int:
        """Raises `UsageError` if processes do not divide over nodes."""
        if self.processes % self.nodes:
            raise UsageError(
                f"{self.processes} processes do not divide over {self.nodes} nodes.",
                where="--nodes",
                remedy="Use a multiple, so that every node runs as many.",
            )
        return self.processes // self.nodes


def slurm(job: JobFile) -> str:
    """An sbatch script, to be submitted from the folder that relative paths are meant from."""
    per_node = job.per_node
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.name}",
        f"#SBATCH --nodes={job.nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --cpus-per-task={per_node * job.cores}",
        *([f"#SBATCH --gpus-per-node={per_node * job.gpus}"] if job.gpus else []),
        f"#SBATCH --output={job.name}-%j.log",
        f"#SBATCH --signal=TERM@{_GRACE_SECONDS}",
        "#SBATCH --requeue",
        "",
        "# Nodes must see this folder under the same path. Requeued or submitted again, the run goes on.",
        "set -euo pipefail",
        'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"srun --kill-on-bad-exit=1 {_torchrun(job, '$SLURM_JOB_ID', '$first')} \\",
        f'  --output "$SLURM_SUBMIT_DIR"/{shlex.quote(f"{job.name}-run")}',
    ]
    return "\n".join(lines) + "\n"


def _torchrun(job: JobFile, identity: str, host: str) -> str:
    """Up to where options of `trimtab train` may follow, over several lines."""
    train = shlex.join([str(job.recipe), *job.arguments])
    return (
        f"torchrun --nnodes={job.nodes} --nproc-per-node={job.per_node} --max-restarts={job.restarts} \\\n"
        f"  --shutdown-timeout={_SAVE_SECONDS} \\\n"
        f'  --rdzv-backend=c10d --rdzv-id="{identity}" --rdzv-endpoint="{host}:{_PORT}" \\\n'
        f"  -m trimtab train {train}"
    )


def kubernetes(job: JobFile, *, recipe_text: str, image: str, claim: str) -> str:
    """A ConfigMap with the recipe, a headless Service to meet at, and an Indexed Job, as one YAML stream.

    `claim` names a PersistentVolumeClaim (ReadWriteMany for several nodes) that is mounted at `/trimtab`; the recipe's
    relative paths are meant from there.
    """
    labels = {"app.kubernetes.io/name": job.name, "app.kubernetes.io/managed-by": "trimtab"}

    def meta() -> dict[str, object]:
        # A copy each: YAML would write the second as a reference to the first.
        return {"name": job.name, "labels": dict(labels)}

    first = f"{job.name}-0.{job.name}" if job.nodes > 1 else "localhost"
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(), "data": {"recipe.yaml": recipe_text}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"app.kubernetes.io/name": job.name},
                "ports": [{"name": "meet", "port": _PORT}],
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta(),
            "spec": {
                "completionMode": "Indexed",
                "completions": job.nodes,
                "parallelism": job.nodes,
                "backoffLimit": job.restarts * job.nodes,
                "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(job, image, claim, first)},
            },
        },
    ]
    return yaml.safe_dump_all(documents, sort_keys=False, width=110)


def _pod(job: JobFile, image: str, claim: str, first: str) -> dict[str, object]:
    limits = {"cpu": str(job.per_node * job.cores)}
    if job.gpus:
        limits["nvidia.com/gpu"] = str(job.per_node * job.gpus)
    return {
        "restartPolicy": "Never",
        "subdomain": job.name,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "containers": [
            {
                "name": "train",
                "image": image,
                "workingDir": _MOUNT,
                "command": _pod_command(job, first),
                "env": [{"name": "TRIMTAB_HOME", "value": f"{_MOUNT}/home"}],
                "resources": {"requests": {"cpu": limits["cpu"]}, "limits": limits},
                "volumeMounts": [
                    {"name": "work", "mountPath": _MOUNT},
                    {
                        "name": "recipe",
                        "mountPath": _pod_recipe(job),
                        "subPath": "recipe.yaml",
                        "readOnly": True,
                    },
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 (NCCL shares memory there)
                ],
            }
        ],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "recipe", "configMap": {"name": job.name}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _pod_recipe(job: JobFile) -> str:
    """On the claim, so that relative paths of the recipe are meant from there."""
    return f"{_MOUNT}/{job.name}.yaml"


def _pod_command(job: JobFile, first: str) -> Sequence[str]:
    return [
        "torchrun",
        f"--nnodes={job.nodes}",
        f"--nproc-per-node={job.per_node}",
        f"--max-restarts={job.restarts}",
        f"--shutdown-timeout={_SAVE_SECONDS}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={job.name}",
        f"--rdzv-endpoint={first}:{_PORT}",
        "-m",
        "trimtab",
        "train",
        _pod_recipe(job),
        *job.arguments,
        "--output",
        f"{_MOUNT}/{job.name}-run",
    ]
