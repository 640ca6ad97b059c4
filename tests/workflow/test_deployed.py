"""As the Snakemake workflow catalog shows and deploys the workflow: as a module in another folder."""

import shlex

import yaml
from snake import CHECKOUT, Done, command, snakemake, write_catalog

SHOWN = yaml.safe_load((CHECKOUT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
MODULE = f"""\
configfile: "config/config.yaml"


module sass:
    snakefile:
        {str(CHECKOUT / "workflow" / "Snakefile")!r}
    config:
        config


use rule * from sass
"""


def test_a_folder_that_deploys_the_workflow_plans_what_a_checkout_plans(tmp_path):
    write_catalog(tmp_path, {"s00000": (True, 9, 2), "s00001": (False, 2, 0)})
    for name, text in {
        "workflow/Snakefile": MODULE,
        "config/config.yaml": (CHECKOUT / "config" / "config.yaml").read_text(),
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "results").mkdir()
    (tmp_path / "run").rename(tmp_path / "results" / "mine")
    deployed = command(
        "snakemake", "-n", "--cores", "1", *shlex.split(SHOWN["mandatory-flags"]["flags"]), inside=tmp_path
    )
    assert deployed.code == 0, deployed.text
    (tmp_path / "results" / "mine").rename(tmp_path / "run")
    at_home: Done = snakemake(tmp_path, "-n")
    assert deployed.jobs == at_home.jobs
    assert deployed.jobs["segment"] == 2


def test_the_catalog_finds_what_it_asks_of_a_workflow():
    readme = (CHECKOUT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    for name in ("config/README.md", "config/config.yaml"):
        assert (CHECKOUT / name).exists()


def test_it_promises_no_software_that_a_deployed_workflow_cannot_bring():
    environment = (CHECKOUT / "workflow" / "envs" / "sass.yml").read_text()
    promised = SHOWN["software-stack-deployment"]
    assert promised["conda"] == ("-e ../.." not in environment)  # a deployment has no checkout two folders up
    assert promised["apptainer"] == ("container:" in (CHECKOUT / "workflow" / "Snakefile").read_text())
    assert SHOWN["report"] == any(
        "report(" in path.read_text() for path in CHECKOUT.glob("workflow/rules/*.smk")
    )
