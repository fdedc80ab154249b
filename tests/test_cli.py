"""The command line: what --help shows, errors in one line, and the way from train to evaluate."""

import re
import subprocess
import sys
from importlib import metadata

import pytest

import eventnet
from eventnet import cli
from eventnet.training import RECIPES, find
from eventnet.training.run import recipe_of
from eventnet.training.setting import fields_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    """Runs go to a folder of the test; the terminal is wide, so that nothing is broken into lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERMINAL_WIDTH", "250")
    monkeypatch.delenv("EVENTNET_DATA", raising=False)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_the_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(command in out for command in ("train", "evaluate", "recipes", "kernels", "demo"))
    _, shown, err = run(capsys)
    assert (shown.split(), err) == (out.split(), "")
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    assert all(name in out for name in RECIPES)


@pytest.mark.parametrize("name", ["digits", "yinyang"])
def test_help_shows_type_unit_and_default_of_every_field(capsys, name):
    code, out, _ = run(capsys, "train", name, "--help")
    assert code == 0
    options = [re.sub(r"[\s│]+", " ", part) for part in out.split("│ --")]
    for setting in fields_of(find(name)):
        pattern = rf"{setting.name.replace('_', '-')} (.*)\[default: (.*?)\]"
        found = next(filter(None, (re.match(pattern, option) for option in options)), None)
        assert found, setting.name
        kind = f"--no-{setting.name}" if setting.element is bool else setting.kind
        assert found[1].startswith(kind), setting.name
        assert not setting.unit or f"({setting.unit})" in found[1], setting.name
        assert found[2] == setting.shown_default, setting.name


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "digit"], 1, "unknown recipe 'digit'; did you mean 'digits'"),
        (["train", "digits", "--epoch", "3"], 2, "--epochs"),
        (["train", "digits", "--lerning-rate", "3"], 2, "--learning-rate"),
        (["train", "digits", "--lr", "3"], 2, "--learning-rate"),
        (["train", "digits", "--bs", "3"], 2, "--batch-size"),
        (["train", "digits", "--epochs", "many"], 1, "--epochs: expected INT, got 'many'"),
        (["train", "digits", "--tau-mem", "fast"], 1, "--tau-mem: expected FLOAT (s), got 'fast'"),
        (["train", "digits", "--tau-mem", "-1"], 1, "--tau-mem: expected a number > 0 (s), got -1"),
        (["train", "digits", "--readout", "maxx"], 1, "did you mean 'max'"),
        (["train", "digits", "--hidden", "10;20"], 1, "--hidden: expected INT,..., such as 100,50, got '10;20'"),
        (["train", "digits", "--data-options", "duration"], 1, "expected KEY=VALUE"),
        (["train", "digits", "--data", "digit"], 1, "unknown data set 'digit'. Did you mean 'digits'?"),
        (
            ["train", "nmnist"],
            1,
            "pass --data-root <folder that holds them> or set the environment variable EVENTNET_DATA",
        ),
        (["train", "nmnist", "--data-root", "nowhere"], 1, "not a folder; --data-root <folder> names another"),
        (["train", "--data-root", "nowhere", "nmnist"], 1, "'nowhere' is not a folder"),
        (["train", "--resume", "nowhere", "nmnist"], 1, "nowhere: no config.json there"),
        (["evaluate", "nowhere", "--part", "all"], 1, "--part: expected train, validation, test, got 'all'"),
        (["train", "--resume", "nowhere"], 1, "no config.json there"),
        (["train", "digits", "--resume", "nowhere"], 1, "no config.json there"),
        (["train", "digits", "--resume", "a", "--out", "b"], 1, "leave --out b out"),
        (["evaluate", "nowhere"], 1, "no config.json there"),
        (["evaluate"], 2, "Missing argument"),
        (["trian"], 2, "'train'"),
    ],
)
def test_errors_are_one_line(capsys, arguments, code, message):
    found, out, err = run(capsys, *arguments)
    assert found == code
    assert err.startswith("eventnet: error: ") and err.count("\n") == 1
    assert message in err
    assert out == ""


def test_recurrence_and_delays_are_options(capsys, tmp_path):
    changes = ["--recurrent", "--delay", "0,0.03", "--delay-kind", "axonal", "--hidden", "5", "--epochs", "1"]
    code, _, err = run(capsys, "train", "digits", *changes, "--out", "run")
    assert code == 0, err
    recipe = recipe_of(tmp_path / "run")
    assert (recipe.recurrent, recipe.delay, recipe.delay_kind) == (True, (0.0, 0.03), "axonal")
    code, _, err = run(capsys, "train", "digits", "--no-recurrent", "--recurrent-delay", "0,1", "--out", "other")
    assert code == 1 and "--recurrent-delay: expected none in a network that is not recurrent, got 0,1" in err


def test_from_train_to_evaluate(capsys, tmp_path):
    changes = ["--hidden", "12", "--epochs", "2", "--input-dropout", "0.1", "--data-options", "duration=0.035"]
    code, out, err = run(capsys, "train", "digits", *changes)
    assert code == 0, err
    assert "epoch 2/2" in err and "spikes per neuron" in err and " left" in err
    accuracy = re.search(r"test accuracy +(\S+%)", out)[1]
    assert (tmp_path / "runs" / "digits" / "plots" / "activity.png").is_file()
    code, out, _ = run(capsys, "evaluate", "runs/digits")
    assert code == 0
    assert re.search(r"test accuracy +(\S+%)", out)[1] == accuracy
    assert "spikes per inference" in out

    for arguments in (["digits", "--resume", "runs/digits"], ["yinyang", "--resume", "runs/digits"]):
        code, _, err = run(capsys, "train", *arguments)
        assert code == 1
    assert "is a run of the recipe digits, not of yinyang" in err
    code, _, err = run(capsys, "train", "digits", "--out", "runs/digits")
    assert code == 1 and "is not empty" in err
    code, _, err = run(capsys, "evaluate", "runs/digits", "--part", "all")
    assert code == 1 and "expected train, validation, test, got 'all'" in err


def test_a_second_run_gets_a_folder_of_its_own(capsys, tmp_path):
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    code, out, err = run(capsys, "train", "digits", "--hidden", "5", "--epochs", "1")
    assert code == 0, err
    assert "runs/digits-2" in out


def test_resume_by_command(capsys, tmp_path, monkeypatch):
    from eventnet.training import recorder

    def stop(self, trainer, module):
        if module.epoch == 1:
            raise KeyboardInterrupt

    changes = ["--hidden", "8", "--epochs", "3"]
    with monkeypatch.context() as patched:
        patched.setattr(recorder.Progress, "on_train_epoch_end", stop)
        code, _, err = run(capsys, "train", "digits", *changes, "--out", "a")
    assert code == 1
    assert "stopped after epoch 1 of 3; eventnet train digits --resume a goes on" in err
    code, _, err = run(capsys, "train", "digits", "--resume", "a", "--epochs", "9")
    assert code == 1 and "keeps its recipe (digits), but epochs differ" in err
    code, resumed, err = run(capsys, "train", "--resume", "a")
    assert code == 0, err
    code, whole, _ = run(capsys, "train", "digits", *changes, "--out", "b")
    assert re.findall(r"accuracy.*", resumed) == re.findall(r"accuracy.*", whole)


def test_demo(capsys, monkeypatch):
    monkeypatch.setattr(cli, "find", lambda name: find(name).changed(hidden=(10,), epochs=1))
    code, out, err = run(capsys, "demo")
    assert code == 0, err
    error = re.search(r"EventProp vs finite differences, max relative error: (\S+)", out)[1]
    assert float(error) < 1e-6
    assert "test accuracy" in out and "spikes per inference" in out and "activity.png" in out
    commands = re.findall(r"^  (eventnet .*)$", out.split("Try next:")[1], re.MULTILINE)
    assert len(commands) == 5
    assert re.search(r"L1 +passed", out) and re.search(
        r"accuracy .* trained \(float\), .* in the fixed-point simulation", out
    )
    assert re.search(r"energy, loihi1 +.*J \+ .*J idle, estimated", out) and "report.html" in out


def test_recipes_and_kernels(capsys):
    code, out, _ = run(capsys, "recipes")
    assert code == 0
    assert all(name in out for name in RECIPES)
    code, out, _ = run(capsys, "kernels")
    assert code == 0
    assert "cpu" in out and "reference" in out


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"eventnet {eventnet.__version__}\n")
    as_module = [sys.executable, "-m", "eventnet", "--version"]
    result = subprocess.run(as_module, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == f"eventnet {metadata.version('eventnet')}\n"


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupt(facts):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_show", interrupt)
    assert run(capsys, "kernels") == (130, "", "eventnet: error: interrupted\n")


def test_help_does_not_load_what_it_does_not_need():
    code = (
        "import sys\nfrom eventnet.cli import main\nmain(['train', 'digits', '--help'])\n"
        "print(sorted({'lightning', 'matplotlib', 'tonic', 'sklearn', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
