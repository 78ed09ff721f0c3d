"""The files of deploy/ and the page on production: they parse, name what exists, and the image's command starts."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from segue.cli.main import main

ROOT = Path(__file__).parent.parent
DEPLOY, PAGE = ROOT / "deploy", ROOT / "docs" / "production.md"
DOCKERFILE, COMPOSE, UNIT, KUBERNETES = (
    DEPLOY / name for name in ("Dockerfile", "compose.yaml", "segue.service", "kubernetes.yaml")
)


def instructions(file: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile, and what follows each."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.M))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last(name: str) -> Any:
    """The last instruction of a name, as JSON."""
    return json.loads([rest for instruction, rest in instructions() if instruction == name][-1])


def sections(unit: Path = UNIT) -> RawConfigParser:
    """A unit; of keys that occur twice, the last one."""
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit, encoding="utf-8")
    return parser


def resources() -> dict[str, dict[str, Any]]:
    """Resources of the Kubernetes example by kind."""
    documents = list(yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")))
    return {document["kind"]: document for document in documents}


def container() -> dict[str, Any]:
    (one,) = resources()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(one, dict)
    return one


def compose() -> dict[str, Any]:
    content = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def commands() -> Iterator[tuple[str, list[str]]]:
    """All command lines of segue, without the program's name, and the places where they stand."""
    yield "Dockerfile", last("CMD")
    yield "compose", [str(word) for word in compose()["services"]["segue"]["command"]]
    yield "kubernetes", [str(word) for word in container()["args"]]
    yield "unit", shlex.split(sections()["Service"]["ExecStart"])[1:]
    texts = {file.name: re.sub(r"^# ?", "", file.read_text(encoding="utf-8"), flags=re.M) for file in DEPLOY.iterdir()}
    shown = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    for name, text in {**texts, PAGE.name: "\n".join(shown)}.items():
        for found in re.findall(r"^ *(?:xargs -r |\S*/bin/)?segue (.+)", text.replace("\\\n", " "), re.M):
            words = shlex.split(re.sub(r" < .*", "", found))
            yield name, [*words, "1"] if words[-1] == "--users" else words  # xargs gives the ids


@pytest.mark.parametrize(
    ("place", "words"), [pytest.param(*pair, id=f"{pair[0]}: {pair[1][0]}") for pair in commands()]
)
def test_each_command_line_is_understood(
    place: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All options exist and have possible values: they are read, and printed as YAML, and nothing else is done."""
    monkeypatch.setenv("COLUMNS", "120")
    assert main([*words, "--print-config"]) == 0, capsys.readouterr().err
    printed = yaml.safe_load(capsys.readouterr().out)
    for option in [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]:
        assert option in json.dumps(printed), option


def test_options_and_metrics_that_the_page_names_exist(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prometheus_client", reason="segue[serve] is not installed")
    from segue.serving.metrics import HttpMetrics, Metrics

    text = PAGE.read_text(encoding="utf-8")
    known = {"--file", "--tag", "--publish", "--volume", "--dbname"}
    for command in ("serve", "token", "events", "forget", "refresh"):
        assert main([command, "--help"]) == 0
        known |= set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.M))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known == set()
    metrics = HttpMetrics().text() + Metrics().text()
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)", metrics.decode(), re.M))
    assert set(re.findall(r"`(segue_[a-z_]+)`", text)) - {*types} == set()


def test_limits_that_the_page_names_are_those_of_the_service() -> None:
    pytest.importorskip("msgspec", reason="segue[serve] is not installed")
    from segue.serving import schemas
    from segue.serving.config import ServiceConfig
    from segue.serving.journal import _WAITING

    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| \d\d\d", PAGE.read_text(encoding="utf-8"), re.M))
    config = ServiceConfig()
    assert rows["body of a request"] == f"`--max-body`, {config.max_body:,} bytes"
    assert rows["events or items in a request"] == f"{schemas.MAX_EVENTS:,}"
    assert rows["questions in a batch"] == f"{schemas.MAX_USERS:,}"
    assert rows["length of a list"].startswith(f"{schemas.MAX_K:,}")
    assert rows["given history"] == f"{schemas.MAX_HISTORY:,} items"
    assert rows["requests that wait"] == f"`--queue`, {config.queue}"
    assert rows["time to wait"] == f"`--deadline`, {config.deadline:g} seconds"
    assert rows["events that wait for the store"] == f"{_WAITING:,}"


# ---- the image ------------------------------------------------------------------------------------------------------


def test_the_image_is_built_from_what_is_there() -> None:
    found = instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in found} == known | {"ENTRYPOINT", "CMD"}
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [rest.split()[:-1] for name, rest in found if name == "COPY" and not rest.startswith("--from")]
    for file in [file for files in copied for file in files]:
        assert (ROOT / file).exists(), file
        assert f"!{file}" in allowed, file
    stages = [
        part.split("\n")[0] for part in re.split(r"^FROM ", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M)[1:]
    ]
    assert len({stage.split(" AS ")[0] for stage in stages}) == 1, "a venv needs the Python that it was made with"
    assert [rest for name, rest in found if name == "USER"] == ["10001"]


def test_the_steps_of_the_image_are_commands_that_exist(tmp_path: Path) -> None:
    """The environment is made; of the installation, options and requirements are checked, and nothing is installed."""
    steps = [shlex.split(rest) for name, rest in instructions() if name == "RUN"]
    make, install, add_user = steps
    assert make == ["python", "-m", "venv", "/opt/segue"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "segue")], check=True)
    assert install[:2] == ["/opt/segue/bin/pip", "install"]
    helped = subprocess.run([sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True).stdout
    options = [word for word in install if word.startswith("--")]
    assert [option for option in options if option not in helped] == []
    assert (ROOT / install[install.index("--constraint") + 1]).exists()
    assert re.search(r"^serve = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert install[-1] == ".[serve]"
    assert add_user[0] == "useradd" and "--uid 10001" in " ".join(add_user)


@pytest.mark.slow
def test_the_command_of_the_image_gets_ready(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="segue[serve] is not installed")
    from segue.serving.tokens import new_token
    from tests.serving.servers import make_run, serving

    command, runs = last("CMD"), tmp_path / "runs"
    assert last("ENTRYPOINT") == ["segue"]
    make_run(runs / "first")
    (runs / "current").symlink_to("first")
    token = new_token(tmp_path / "tokens.toml", "shop", ["read", "write"])
    places = {
        "/runs/current": str(runs / "current"),
        "sqlite:////var/lib/segue/events.db": f"sqlite:///{tmp_path / 'events.db'}",
        "/etc/segue/tokens.toml": str(tmp_path / "tokens.toml"),
    }
    assert places.keys() <= set(command)
    serve, run, *options = [places.get(word, word) for word in command]
    assert serve == "serve"
    store = options.index("--store")
    address = options[store + 1]
    health = json.loads(next(rest for name, rest in instructions() if name == "HEALTHCHECK").partition("CMD ")[2])
    with serving(run, address, *options[:store], *options[store + 2 :], token=token) as server:
        assert health[0] == "python"
        program = health[-1].replace(":8000/", f":{server.port}/")
        subprocess.run([sys.executable, *health[1:-1], program], check=True)
        assert server.post("events", {"user": "new", "item": 3})["stored"] == 1
        assert server.items(user="new", k=1) == [4]
        server.token = None
        assert server.ask("GET", "/v1/models")[0] == 401
        assert server.stop() == 0
    done = subprocess.run([sys.executable, *health[1:-1], program], capture_output=True, check=False)
    assert done.returncode != 0


# ---- compose, systemd, Kubernetes -----------------------------------------------------------------------------------


def test_the_parts_of_compose_fit_together() -> None:
    content = compose()
    service, database = content["services"]["segue"], content["services"]["db"]
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert service["depends_on"].keys() <= content["services"].keys()
    user, _, host = service["command"][service["command"].index("--store") + 1].partition("://")[2].partition("@")
    assert host.partition("/")[0] == "db"
    assert (user, host.partition("/")[2]) == (
        database["environment"]["POSTGRES_USER"],
        database["environment"]["POSTGRES_DB"],
    )
    assert service["environment"]["PGPASSWORD"] == database["environment"]["POSTGRES_PASSWORD"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    named = [volume.partition(":")[0] for volume in database["volumes"]]
    assert named == list(content["volumes"])


def test_the_unit_is_a_unit() -> None:
    unit = sections()
    assert unit.sections() == ["Unit", "Service", "Install"]
    wait = int(unit["Service"]["TimeoutStopSec"])
    assert wait > 20, "the service has 20 seconds to drain"
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not there")
    done = subprocess.run([program, "verify", "--man=no", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "segue.service" in line]
    assert [line for line in complaints if "is not executable" not in line] == []


def test_the_kubernetes_example_fits_together() -> None:
    found = resources()
    assert found.keys() == {"PersistentVolumeClaim", "Deployment", "Service", "PodDisruptionBudget"}
    pod = found["Deployment"]["spec"]["template"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == pod["metadata"]["labels"]
    one = container()
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in one["volumeMounts"]} == volumes.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    (port,) = one["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert one[probe]["httpGet"]["port"] == port["name"]
        assert one[probe]["httpGet"]["path"] in ("/health/ready", "/health/live")
    (outside,) = found["Service"]["spec"]["ports"]
    assert outside["targetPort"] == port["name"]
    places = [mount["mountPath"] for mount in one["volumeMounts"]]
    command = one["args"]
    assert Path(command[1]).parent.as_posix() in places
    assert Path(command[command.index("--tokens") + 1]).parent.as_posix() in places
    assert pod["spec"]["terminationGracePeriodSeconds"] > 20 + int(one["lifecycle"]["preStop"]["exec"]["command"][1])
