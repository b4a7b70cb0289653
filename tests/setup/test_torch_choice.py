"""Which torch the set-up takes: real pip, folders and indexes of made-up wheels."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rsc.errors import ResourceError
from rsc.setup import torch_install

from .conftest import Machine
from .wheels import CUDA, make_index, make_wheel


def wheels(machine: Machine, *versions: str, cuda: tuple[str, ...] = ()) -> list[Path]:
    made = [make_wheel(machine.folder / "files", "torch", version) for version in versions]
    return made + [make_wheel(machine.folder / "files", "torch", each, requires=CUDA) for each in cuda]


def offer_index(machine: Machine, *made: Path, extra: bool = False) -> None:
    """Configure an index that offers `made`; `triton` and `nvidia-cublas` are there for CUDA builds."""
    beside = [make_wheel(machine.folder / "files", "triton", "3.8.0")]
    beside += [make_wheel(machine.folder / "files", "nvidia-cublas", "13.0")]
    machine.settings.pop("PIP_NO_INDEX", None)
    address = make_index(machine.folder / ("extra" if extra else "index"), [*made, *beside])
    machine.settings["PIP_EXTRA_INDEX_URL" if extra else "PIP_INDEX_URL"] = address


def offer_folder(machine: Machine) -> None:
    machine.settings["PIP_FIND_LINKS"] = (machine.folder / "files").as_uri()


def constrain(machine: Machine, *lines: str) -> None:
    path = machine.folder.parent / "constraints.txt"  # PIP_CONSTRAINT is a list, split at spaces
    path.write_text("\n".join(lines))
    machine.settings["PIP_CONSTRAINT"] = str(path)


def test_a_constraint_is_honoured_and_a_cpu_build_goes_before_a_newer_one_with_cuda(machine: Machine) -> None:
    offer_index(machine, *wheels(machine, cuda=("2.12.1", "2.15.0")))
    offer_index(machine, *wheels(machine, "2.12.0+cpu", "2.13.0+cpu"), extra=True)
    constrain(machine, "torch<=2.12.9")
    assert machine.install_torch() == "2.12.0+cpu"
    assert any("2.13.0+cpu not taken" in line for line in machine.lines)


def test_a_cpu_build_without_a_label_is_known_by_what_it_needs(machine: Machine) -> None:
    wheels(machine, "2.12.0", "2.13.0", cuda=("2.14.0",))
    offer_folder(machine)
    assert machine.install_torch() == "2.13.0"


def test_builds_that_are_too_old_or_not_final_are_no_offer(machine: Machine) -> None:
    wheels(machine, "2.10.9+cpu", "2.13.0rc1+cpu", "2.14.0.dev20260901+cpu", "2.11.0+cpu")
    offer_folder(machine)
    assert machine.install_torch() == "2.11.0+cpu"
    assert len(machine.lines) == 1


def test_pytorchs_index_goes_before_the_large_build(machine: Machine) -> None:
    offer_index(machine, *wheels(machine, cuda=("2.14.1",)))
    made = [
        make_wheel(machine.folder / "pytorch", "torch", version) for version in ("2.12.0+cpu", "2.13.0+cpu")
    ]
    machine.cpu_index = make_index(machine.folder / "whl" / "cpu", made)
    assert machine.install_torch() == "2.13.0+cpu"


def test_a_pytorch_index_that_hangs_is_left_and_the_size_of_the_large_build_said(
    machine: Machine, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_install, "PYTORCH_SILENCE_S", 1)
    offer_index(machine, *wheels(machine, cuda=("2.14.1",)))
    machine.cpu_index = silent_server
    assert machine.install_torch() == "2.14.1"
    assert (machine.site / "triton-3.8.0.dist-info").exists()
    none_offered, left, size = machine.lines
    assert "no CPU build" in none_offered
    assert "PyTorch's index: it does not answer" in left
    assert "2.14.1" in size
    assert "3 GB to download" in size


def test_an_index_that_hangs_leaves_the_folder_of_wheels(
    machine: Machine, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsc.setup.pip.SILENCE_S", 1)
    wheels(machine, "2.13.0+cpu")
    offer_folder(machine)
    machine.settings = {**machine.settings, "PIP_INDEX_URL": silent_server}
    machine.settings.pop("PIP_NO_INDEX")
    assert machine.install_torch("cpu") == "2.13.0+cpu"
    assert any(silent_server in line and "does not answer" in line for line in machine.lines)


def test_nothing_at_all_is_said_way_by_way(machine: Machine) -> None:
    with pytest.raises(ResourceError, match=r"torch>=2\.11") as failure:
        machine.install_torch()
    assert failure.value.hint
    assert len(machine.lines) >= 3
    assert any("pip is set to use no index" in line for line in machine.lines)


def test_the_cpu_build_that_was_asked_for_is_never_a_large_one(machine: Machine) -> None:
    offer_index(machine, *wheels(machine, cuda=("2.14.1",)))
    with pytest.raises(ResourceError):
        machine.install_torch("cpu")
    assert not machine.site.exists()


def test_rsc_torch_overrides(machine: Machine) -> None:
    offer_index(machine, *wheels(machine, "2.12.0", "2.13.0+cpu", cuda=("2.14.1",)))
    assert machine.install_torch("torch<2.13") == "2.12.0"


def test_a_gpu_wants_the_build_that_pip_takes_by_itself(machine: Machine) -> None:
    machine.has_gpu = True
    offer_index(machine, *wheels(machine, "2.13.0+cpu", cuda=("2.14.1",)))
    assert machine.install_torch() == "2.14.1"


def test_a_server_is_asked_for_metadata_and_size(machine: Machine) -> None:
    """An index on the network: the metadata beside a wheel (PEP 658) tells a CPU build without a label."""
    made = wheels(machine, "2.13.0", cuda=("2.14.1",))
    for wheel in made:
        text = "Requires-Dist: triton~=3.8.0\n" if "2.14.1" in wheel.name else "Requires-Dist: filelock\n"
        wheel.with_name(f"{wheel.name}.metadata").write_text(text)
    page = machine.folder / "simple" / "torch" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("".join(f'<a href="/files/{each.name}">{each.name}</a>\n' for each in made))
    handler = partial(QuietHandler, directory=str(machine.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        machine.settings = {"PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple"}
        assert machine.install_torch() == "2.13.0"
        server.shutdown()
    assert "(1 MB)" in machine.lines[0]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
