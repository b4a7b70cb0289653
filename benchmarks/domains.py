"""What each domain reaches on real data with its recipe, beside a control given the same.

    python benchmarks/domains.py [--only NAME ...] [--nanogpt-dir PATH] [--no-controls]
                                    [--json] [--quick]

Data: tinyshakespeare.txt, cifar10_jpeg.zip, free_spoken_digits.zip and davidson_tweets.csv from
$RSC_TEST_DATA or ../shared/data. Everything goes the way a user's data goes: `rsc data import`, `approve`,
`train`, `eval`, in a workspace of its own. `wall_s` and `cpu_s` are those of `rsc train` (or of the control's
training). A case with a time limit first takes a few steps and reads from them how many steps of its recipe
fit: `steps` says how many it took. `harmful_content` goes on where it stopped: folds that are done are kept
in $RSC_BENCH_STATE, if that is set. `--quick` runs every case at toy size: it shows that they run, its
figures mean nothing.

| case | measured on | control |
|---|---|---|
| language | last tenth of tinyshakespeare, whole windows of 64 | nanogpt: its CPU example, 2000 steps |
| vision | CIFAR-10 test | small_resnet: a plain residual network, the same seconds |
| speech | recordings 0-4 of each speaker and digit | - |
| speech_speakers | each of six speakers, when trained on the other five | - |
| speech_ctc | rows of 2 to 5 digits from recordings 0-4 | - |
| harmful_content | five folds of the labelled posts | tfidf_logistic: words and letters, balanced |
| multimodal | pictures with a word that fits or not | rsc without the text, without the picture |
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import wave
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Options, Report, main
from nanogpt import write_nanogpt_corpus

from rsc.recipes.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
PROBE = 24  # steps that tell the pace; the first third of them is warming up
LIMIT_S = {  # of training; the whole table fits into an hour on two cores
    "vision": 840.0,
    "speech": 270.0,
    "speech_speakers": 60.0,
    "speech_ctc": 330.0,
    "harmful_content": 120.0,
    "multimodal": 120.0,
}
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


@dataclass(frozen=True)
class Bench:
    """One workspace, the real data, and the report under way."""

    folder: Path
    data: Path
    report: Report
    options: Options

    @property
    def quick(self) -> bool:
        return self.options.quick

    def rsc(self, *arguments: str) -> dict[str, Any]:
        environment = {**os.environ, "RSC_HOME": str(self.folder / "home")}
        command = [sys.executable, "-m", "rsc", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"rsc {' '.join(arguments)}: {done.stderr[-1500:]}")
        result: dict[str, Any] = json.loads(done.stdout) if "--json" in arguments else {}
        return result

    def bring(self, source: Path, *settings: str, name: str, safeguard: str = "") -> None:
        more = ["--safeguard", safeguard] if safeguard else []
        self.rsc("data", "import", str(source), *settings, "--name", name, *more)
        self.rsc("data", "approve", name, "--note", "public research data")

    def train(self, recipe: str, *settings: str, case: str, subject: str = "rsc") -> str:
        """Train and report what it took; returns the run."""
        settings = (*settings, *self._steps(recipe, *settings, case=case))
        start, before = time.perf_counter(), _children_cpu_s()
        done = self.rsc("train", recipe, *settings, "--json")
        wall_s, cpu_s = time.perf_counter() - start, _children_cpu_s() - before
        self.add(case, subject, steps=done["steps"], wall_s=wall_s, cpu_s=cpu_s)
        return str(done["run"])

    def _steps(self, recipe: str, *settings: str, case: str) -> list[str]:
        """The recipe's steps, or as many as fit into the case's limit at the pace of a few."""
        if self.quick and case != "language":
            return ["train.steps=6"]
        if case not in LIMIT_S:
            return []
        probe = self.rsc("train", recipe, *settings, f"train.steps={PROBE}", "--json")
        lines = (Path(probe["path"]) / "metrics" / "rank0.jsonl").read_text().splitlines()
        step_s = statistics.median(json.loads(line)["step_s"] for line in lines[PROBE // 3 :])
        wanted = load_recipe(recipe, overrides=settings).recipe.train.steps
        return [f"train.steps={min(wanted, int(LIMIT_S[case] / step_s))}"]

    def eval(self, run: str, *arguments: str) -> dict[str, Any]:
        return self.rsc("eval", run, *arguments, "--json")

    def add(self, case: str, subject: str, **metrics: float) -> None:
        for metric, value in metrics.items():
            self.report.add(case, metric=metric, subject=subject, values=[value])
            print(f"{case} {subject} {metric} {value:.5g}", file=sys.stderr, flush=True)


def language(bench: Bench) -> None:
    """nanoGPT's CPU example: 4 layers, 4 heads, 128 wide, block 64, batch 12 (README: 1.88 after 2000 steps).
    Steps that reach that loss, and as many as take about nanoGPT's time on two cores."""
    text = (bench.data / "tinyshakespeare.txt").read_text()
    cut = int(0.9 * len(text))
    for name, part in (("plays", text[:cut]), ("plays-held-out", text[cut:])):
        source = bench.folder / f"{name}.txt"
        source.write_text(part)
        bench.bring(source, "holdout=0", "block_chars=65536", name=name)
    sizes = ["model.trunk.width=128", "model.trunk.num_layers=4", "model.trunk.num_heads=4"]
    sizes += ["model.trunk.mlp_width=344", "data.sequence_length=64", "train.batch_size=12", "eval.overlap=0"]
    sizes += ["eval.batch_size=128"]
    for subject, steps in (("rsc", 720), ("rsc_same_time", 1650)):
        steps = steps // 25 if bench.quick else steps
        settings = [*sizes, "data.name=plays", f"train.steps={steps}"]
        run = bench.train("language", *settings, case="language", subject=subject)
        found = bench.eval(run, "--data", "plays-held-out", "--split", "train")
        bench.add("language", subject, val_loss=found["loss"])
    nanogpt(bench, text=text, cut=cut)


def nanogpt(bench: Bench, *, text: str, cut: int) -> None:
    if bench.options.arguments.no_controls:
        return
    if not bench.options.arguments.nanogpt_dir:
        bench.report.skip("nanogpt", reason="give its folder with --nanogpt-dir")
        return
    place = bench.folder / "nanogpt"
    ignored = shutil.ignore_patterns(".git", "assets")
    shutil.copytree(bench.options.arguments.nanogpt_dir, place, ignore=ignored)
    write_nanogpt_corpus(place / "data" / "plays", text=text, cut=cut)
    steps = 20 if bench.quick else 2000
    settings = {
        "device": "cpu", "compile": False, "dataset": "plays", "eval_interval": steps,
        "eval_iters": 5 if bench.quick else 50,
        "log_interval": 500, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128,
        "max_iters": steps, "lr_decay_iters": steps, "dropout": 0.0, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3, "min_lr": 1e-4, "beta2": 0.99, "warmup_iters": 100,
        "out_dir": str(bench.folder / "nanogpt-out"),
    }  # fmt: skip
    command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in settings.items())]
    start, before = time.perf_counter(), _children_cpu_s()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    losses = re.findall(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", done.stdout)
    if done.returncode or not losses:
        raise RuntimeError(f"nanogpt: {done.stderr[-800:]}")
    wall_s, cpu_s = time.perf_counter() - start, _children_cpu_s() - before
    bench.add("language", "nanogpt", wall_s=wall_s, cpu_s=cpu_s, val_loss=float(losses[-1]))


def vision(bench: Bench) -> None:
    source = bench.data / "cifar10_jpeg.zip"
    if bench.quick:
        source = few(source, bench.folder / "few-pictures", per_folder=12)
    bench.bring(source, "image_size=32", name="pictures", safeguard="published research pictures")
    start = time.perf_counter()
    run = bench.train("vision", "data.name=pictures", case="vision")
    seconds = 20 if bench.quick else min(900.0, time.perf_counter() - start)
    figures(bench, "vision", "rsc", bench.eval(run, "--split", "test"))
    if bench.options.arguments.no_controls:
        return
    folder = source
    if not folder.is_dir():
        folder = bench.folder / "pictures"
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder)
    control = [sys.executable, str(Path(__file__).with_name("controls.py")), "small_resnet", str(folder)]
    done = subprocess.run([*control, str(seconds)], capture_output=True, text=True, check=True)
    bench.add("vision", "small_resnet", **json.loads(done.stdout.splitlines()[-1]))


def speech(bench: Bench) -> None:
    """The official split: recordings 0 to 4 of each speaker and digit are the test."""
    digits(bench, name="digits", test_where="index=0,1,2,3,4")
    run = bench.train("speech", "data.name=digits", case="speech")
    figures(bench, "speech", "rsc", bench.eval(run, "--split", "test"))


def speech_speakers(bench: Bench) -> None:
    """Leave one speaker out, six times; the honest figure for a voice the model has never heard."""
    accuracies = []
    for speaker in SPEAKERS[: 1 if bench.quick else None]:
        digits(bench, name=f"without-{speaker}", test_where=f"speaker={speaker}")
        run = bench.train("speech", f"data.name=without-{speaker}", case="speech_speakers")
        accuracies.append(bench.eval(run, "--split", "test")["accuracy"])
    bench.report.add("speech_speakers", metric="accuracy", subject="rsc", values=accuracies)
    bench.add("speech_speakers", "rsc", mean_accuracy=statistics.fmean(accuracies))


def digits(bench: Bench, *, name: str, test_where: str) -> None:
    bench.bring(
        bench.data / "free_spoken_digits.zip",
        "sample_rate=8000",
        "label_pattern={label}_{speaker}_{index}",
        f"test_where={test_where}",
        name=name,
        safeguard="volunteers read digits aloud for publication",
    )


def speech_ctc(bench: Bench) -> None:
    source = bench.folder / "rows-of-digits"
    generator = np.random.default_rng(0)
    counts = {"train": 40, "test": 10} if bench.quick else {"train": 8000, "test": 500}
    with zipfile.ZipFile(bench.data / "free_spoken_digits.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".wav")]
        sounds = {name: read_wav(archive.read(name)) for name in names}
    for split, count in counts.items():
        (source / split).mkdir(parents=True)
        pool = [name for name in names if (int(Path(name).stem.split("_")[2]) < 5) == (split == "test")]
        for number in range(count):
            chosen = generator.choice(pool, generator.integers(2, 6))
            write_wav(source / split / f"{number}.wav", np.concatenate([sounds[name] for name in chosen]))
            said = " ".join(WORDS[int(Path(name).stem[0])] for name in chosen)
            (source / split / f"{number}.txt").write_text(said)
    bench.bring(
        source, "sample_rate=8000", name="rows", safeguard="volunteers read digits aloud for publication"
    )
    labels = "model.head.labels=" + json.dumps(WORDS)
    run = bench.train("speech-ctc", "data.name=rows", labels, case="speech_ctc")
    found = bench.eval(run, "--split", "test")
    bench.add("speech_ctc", "rsc", wer=found["word_error_rate"], exact_match=found["exact_match"])


def harmful_content(bench: Bench) -> None:
    """Five folds, the same for the control; hate is class 0."""
    with (bench.data / "davidson_tweets.csv").open(newline="") as file:
        rows = [(row["tweet"], row["class"]) for row in csv.DictReader(file)]
    rows = rows[:600] if bench.quick else rows
    fold_of = np.random.default_rng(0).permutation(len(rows)) % 5
    confusions = [fold_of_posts(bench, rows, fold_of, fold=fold) for fold in range(1 if bench.quick else 5)]
    scores(bench, "rsc", confusions)
    if not bench.options.arguments.no_controls:
        control_of_posts(bench, rows, fold_of)


def fold_of_posts(
    bench: Bench, rows: Sequence[tuple[str, str]], fold_of: np.ndarray, *, fold: int
) -> np.ndarray:
    """Confusion on one fold of a model trained on the others; from an earlier call where that is kept."""
    state = os.environ.get("RSC_BENCH_STATE")
    kept = Path(state) / f"harmful-content-{fold}.json" if state and not bench.quick else None
    if kept is not None and kept.exists():
        return np.array(json.loads(kept.read_text()))
    for part in ("train", "test"):
        chosen = [row for row, f in zip(rows, fold_of, strict=True) if (f == fold) == (part == "test")]
        source = bench.folder / f"posts-{part}-{fold}.csv"
        write_csv(source, chosen)
        bench.bring(source, "holdout=0", name=f"posts-{part}-{fold}")
    run = bench.train("harmful-content", f"data.name=posts-train-{fold}", case="harmful_content")
    found = bench.eval(run, "--data", f"posts-test-{fold}", "--split", "train")
    bench.add("harmful_content", "rsc", fold_macro_f1=found["macro_f1"])
    if kept is not None:
        kept.write_text(json.dumps(found["details"]["confusion"]))
    return np.array(found["details"]["confusion"])


def scores(bench: Bench, subject: str, confusions: Sequence[np.ndarray]) -> None:
    """Macro-F1, weighted F1 and recall of hate, each over folds."""
    tables: dict[str, list[float]] = {"macro_f1": [], "weighted_f1": [], "hate_recall": []}
    for table in confusions:
        f1 = 2 * np.diag(table) / np.maximum(table.sum(0) + table.sum(1), 1)
        tables["macro_f1"].append(float(f1.mean()))
        tables["weighted_f1"].append(float((f1 * table.sum(1)).sum() / table.sum()))
        tables["hate_recall"].append(float(table[0, 0] / max(table[0].sum(), 1)))
    for metric, values in tables.items():
        bench.report.add("harmful_content", metric=metric, subject=subject, values=values)


def control_of_posts(bench: Bench, rows: Sequence[tuple[str, str]], fold_of: np.ndarray) -> None:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import confusion_matrix
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError:
        bench.report.skip("tfidf_logistic", reason="pip install scikit-learn")
        return
    texts, labels = np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])
    confusions = []
    for fold in range(1 if bench.quick else 5):
        features = make_union(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
        )
        model = make_pipeline(features, LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000))
        start, train = time.perf_counter(), fold_of != fold
        model.fit(texts[train], labels[train])
        bench.add("harmful_content", "tfidf_logistic", wall_s=time.perf_counter() - start)
        guesses = model.predict(texts[~train])
        confusions.append(confusion_matrix(labels[~train], guesses, labels=[0, 1, 2]))
    scores(bench, "tfidf_logistic", confusions)


def multimodal(bench: Bench) -> None:
    """Does the word fit the picture? Half of the pictures have the word of the other kind, so that neither
    input alone tells anything."""
    generator = np.random.default_rng(0)
    source = bench.folder / "posts-with-pictures"
    counts = {"train": 40, "test": 20} if bench.quick else {"train": 20000, "test": 2000}
    with zipfile.ZipFile(bench.data / "cifar10_jpeg.zip") as archive:
        for split, count in counts.items():
            names = [n for n in archive.namelist() if n.startswith(f"{split}/") and n.endswith(".jpg")]
            for number, name in enumerate(generator.choice(names, count, replace=False)):
                fits = bool(generator.integers(0, 2))
                is_animal = name.split("/")[1] in ANIMALS
                word = "an animal" if is_animal == fits else "a vehicle"
                for kind, text, picture in variants(split, word, archive.read(str(name))):
                    place = source / kind / split / ("match" if fits else "mismatch")
                    place.mkdir(parents=True, exist_ok=True)
                    (place / f"{number}.jpg").write_bytes(picture)
                    (place / f"{number}.txt").write_text(f"look at this {text}")
    for kind in ("whole", "no_text", "no_picture"):
        bench.bring(
            source / kind, "image_size=32", name=kind.replace("_", "-"), safeguard="published pictures"
        )
    settings = ["data.name=whole", 'model.head.labels=["mismatch", "match"]']
    run = bench.train("harmful-content-multimodal", *settings, case="multimodal")
    for kind, subject in (("whole", "rsc"), ("no-text", "rsc_no_text"), ("no-picture", "rsc_no_picture")):
        figures(bench, "multimodal", subject, bench.eval(run, "--data", kind, "--split", "test"))


def variants(split: str, word: str, picture: bytes) -> Iterable[tuple[str, str, bytes]]:
    """The post, and for the test the post with one input made the same for all."""
    yield "whole", word, picture
    if split == "test":
        yield "no_text", "thing", picture
        yield "no_picture", word, grey_picture()


def grey_picture() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(file, "JPEG")
    return file.getvalue()


def figures(bench: Bench, case: str, subject: str, found: dict[str, Any]) -> None:
    bench.add(case, subject, accuracy=found["accuracy"], macro_f1=found["macro_f1"], val_loss=found["loss"])


def few(source: Path, folder: Path, *, per_folder: int) -> Path:
    """The first files of each folder of an archive."""
    seen: dict[str, int] = {}
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            place = str(Path(name).parent)
            seen[place] = seen.get(place, 0) + 1
            if name.endswith(".jpg") and seen[place] <= per_folder:
                archive.extract(name, folder)
    return folder


def read_wav(data: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype(np.int16).tobytes())


def write_csv(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "class"))
        writer.writerows(rows)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


CASES: dict[str, Callable[[Bench], None]] = {
    "language": language,
    "vision": vision,
    "speech": speech,
    "speech_speakers": speech_speakers,
    "speech_ctc": speech_ctc,
    "harmful_content": harmful_content,
    "multimodal": multimodal,
}


def measure(options: Options) -> Report:
    report = Report()
    data = Path(os.environ.get("RSC_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        report.skip("rsc", reason=f"no real data at {data}: set RSC_TEST_DATA")
        return report
    for case in options.arguments.only or CASES:
        with tempfile.TemporaryDirectory(prefix="rsc-bench-") as folder:
            CASES[case](Bench(Path(folder), data, report, options))
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="only these cases")
    parser.add_argument("--no-controls", action="store_true", help="leave out what rsc is compared with")
    parser.add_argument("--nanogpt-dir", type=Path, help="a clone of github.com/karpathy/nanoGPT")


if __name__ == "__main__":
    main(__doc__ or "", measure, default_runs=1, add_arguments=add_arguments)
