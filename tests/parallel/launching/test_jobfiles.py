"""Job files: their shape, and the Slurm one run for real with stand-ins for `srun` and `scontrol`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trimtab.parallel.launching.jobfiles import JobFile, kubernetes, slurm
from trimtab.spec.errors import UsageError

JOB = JobFile(
    name="tiny",
    recipe=Path("my recipe.yaml"),
    processes=8,
    nodes=2,
    cores=3,
    gpus=1,
    arguments=("--processes", "8"),
)


def test_the_script_asks_for_what_the_job_needs():
    text = slurm(JOB)
    assert text.startswith("#!/bin/bash\n")
    for line in ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=12", "--gpus-per-node=4", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "--nnodes=2 --nproc-per-node=4" in text
    assert "'my recipe.yaml' --processes 8" in text
    # Directives after the first command are ignored by sbatch.
    assert text.rindex("#SBATCH") < text.index("set -euo")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_processes_must_divide_over_nodes():
    with pytest.raises(UsageError, match="9 processes do not divide over 2 nodes"):
        slurm(JobFile(name="tiny", recipe=Path("r"), processes=9, nodes=2))


def test_the_kubernetes_job_is_one_pod_a_node_that_meet_at_the_first():
    documents = list(yaml.safe_load_all(kubernetes(JOB, recipe_text="version: 1\n", image="i:1", claim="c")))
    recipe, service, job = documents
    assert [document["kind"] for document in documents] == ["ConfigMap", "Service", "Job"]
    assert recipe["data"]["recipe.yaml"] == "version: 1\n"
    assert service["spec"]["clusterIP"] == "None"
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "12", "nvidia.com/gpu": "4"}
    assert "--rdzv-endpoint=tiny-0.tiny:29500" in container["command"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


RECIPE = """
version: 1
name: tiny
model: {architecture: llama, layers: 1, hidden: 32, heads: 2, ffn: 48, vocabulary: 320, context: 64}
data: {train: {jsonl: text.jsonl, text: t}}
training: {tokens: 1280, sequence_length: 16, batch: 4}
"""


def command(*arguments, folder, **options):
    environment = os.environ | {"TRIMTAB_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        **options,
    )


@pytest.fixture
def folder(tmp_path):
    rows = [json.dumps({"t": f"the {n} cats sat on {n * 7} mats near {n % 13} dogs"}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_emit_needs_to_know_how_many(folder):
    done = command("train", "recipe.yaml", "--emit", "slurm", folder=folder)
    assert done.returncode == 2
    assert "--processes N" in done.stderr


@pytest.mark.slow
def test_the_slurm_script_runs_as_it_is_and_ends_as_a_local_run(folder):
    """`srun` runs its command here; the rest of the script is as printed."""
    printed = command("train", "recipe.yaml", "--processes", "2", "--emit", "slurm", folder=folder)
    assert printed.returncode == 0, printed.stderr
    tools = folder / "tools"
    tools.mkdir()
    binaries = Path(sys.executable).parent
    stand_ins = {
        "srun": '#!/bin/bash\nshift\nexec "$@"\n',
        "scontrol": "#!/bin/bash\necho localhost\n",
        "torchrun": f'#!/bin/bash\nexec "{sys.executable}" -m torch.distributed.run "$@"\n',
    }
    for name, text in stand_ins.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    script = folder / "job.sh"
    script.write_text(printed.stdout)
    environment = os.environ | {
        "PATH": f"{tools}:{binaries}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-1]",
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(folder),
        "TRIMTAB_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == folder / "tiny-run" / "models" / "baseline"
    local = command("train", "recipe.yaml", "--processes", "2", "--json", folder=folder)
    assert local.returncode == 0, local.stderr
    result = json.loads((folder / "tiny-run" / "results" / "baseline.json").read_text())["trained"]
    assert result["curve"] == json.loads(local.stdout)["training"]["curve"]


def test_a_job_file_trains_as_the_command_would_have(folder):
    flags = ("--layout", "data=2,tensor=2", "--keep", "5", "--keep-best", "--log", "figures.jsonl")
    printed = command("train", "recipe.yaml", *flags, "--emit", "slurm", folder=folder)
    assert printed.returncode == 0, printed.stderr
    assert "--nproc-per-node=4" in printed.stdout
    assert "--shutdown-timeout=110" in printed.stdout
    asked = "recipe.yaml --layout data=2,tensor=2 --keep 5 --keep-best --log figures.jsonl"
    assert asked in printed.stdout
    refused = command("train", "recipe.yaml", "--fresh", "--emit", "slurm", "--processes", "2", folder=folder)
    assert refused.returncode == 2
    assert "--fresh" in refused.stderr


def test_a_pods_recipe_lies_where_its_relative_paths_are_meant_from():
    *_, job = yaml.safe_load_all(kubernetes(JOB, recipe_text="version: 1\n", image="i:1", claim="c"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert "/trimtab/tiny.yaml" in container["command"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "recipe"]
    assert (mount["mountPath"], mount["subPath"]) == ("/trimtab/tiny.yaml", "recipe.yaml")
