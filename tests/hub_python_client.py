#!/usr/bin/env python3
"""Shows that agnews and Python's huggingface_hub use one cache, in both directions.

Run by hand from the repository's root, with huggingface_hub installed (transformers too, for one more check):

    python tests/hub_python_client.py

It builds agnews, starts the tests' own Hub, and leaves nothing behind.
"""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL_ID = "org/small"
TEXT = "The striker scored twice in the second half and the crowd went home happy"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def environment(endpoint, home, **more):
    return {"PATH": os.environ["PATH"], "HOME": home, "HF_HOME": home, "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}


def agnews(program, env, *arguments):
    return subprocess.run([program, "--scores", *arguments, TEXT], env=env, check=True, capture_output=True,
                          text=True).stdout


def python(env, code):
    """Runs code in a fresh interpreter, because huggingface_hub reads the environment once, and returns its JSON."""
    answer = subprocess.run([sys.executable, "-c", "import json\n" + code], env=env, capture_output=True, text=True)
    if answer.returncode != 0:
        sys.exit(f"{code}\n{answer.stderr}")
    return json.loads(answer.stdout.splitlines()[-1])


def snapshot(arguments=""):
    return f"from huggingface_hub import snapshot_download\nprint(json.dumps(snapshot_download({MODEL_ID!r}{arguments})))"


def check(what, holds):
    print(("ok      " if holds else "FAILED  ") + what)
    if not holds:
        sys.exit(1)


def filled_by_python(program, endpoint, expected):
    for revision in ["main", "refs/pr/1"]:
        with tempfile.TemporaryDirectory() as home:
            python(environment(endpoint, home), snapshot(f", revision={revision!r}"))
            answer = agnews(program, environment("http://127.0.0.1:9", home), "-m", MODEL_ID, "--revision", revision,
                            "--offline")
            check(f"a cache that Python has filled ({revision}) is used offline by agnews", answer == expected)
    with tempfile.TemporaryDirectory() as home:
        patterns = ["config.json", "tokenizer*.json", "*.safetensors"]
        python(environment(endpoint, home), snapshot(f", revision='wide', allow_patterns={patterns}"))
        answer = agnews(program, environment("http://127.0.0.1:9", home), "-m", MODEL_ID, "--revision", "wide",
                        "--offline")
        check("so is one whose listing names more than Python was asked for", answer == expected)
    with tempfile.TemporaryDirectory() as home:
        python(environment(endpoint, home, HF_HUB_DISABLE_SYMLINKS="1"), snapshot())
        answer = agnews(program, environment("http://127.0.0.1:9", home), "-m", MODEL_ID, "--offline")
        check("so is one without links", answer == expected)
    with tempfile.TemporaryDirectory() as home:
        python(environment(endpoint, home), "\n".join(
            ["from huggingface_hub import hf_hub_download"] +
            [f"hf_hub_download({MODEL_ID!r}, {name!r})" for name in FILES] + ["print(0)"]))
        answer = agnews(program, environment("http://127.0.0.1:9", home), "-m", MODEL_ID, "--offline")
        check("so is one that hf_hub_download has filled file by file", answer == expected)


def filled_by_agnews(program, endpoint, expected):
    with tempfile.TemporaryDirectory() as home:
        online, offline = environment(endpoint, home), environment("http://127.0.0.1:9", home, HF_HUB_OFFLINE="1")
        check("agnews fills an empty cache", agnews(program, online, "-m", MODEL_ID) == expected)
        folder = Path(python(offline, snapshot()))
        check("Python finds the snapshot offline", sorted(path.name for path in folder.iterdir()) == FILES)
        paths = python(offline, f"from huggingface_hub import hf_hub_download\nprint(json.dumps("
                                f"[hf_hub_download({MODEL_ID!r}, name, local_files_only=True) for name in {FILES}]))")
        check("Python finds each file offline", [Path(path) for path in paths] == [folder / name for name in FILES])
        scan = python(offline, "from huggingface_hub import scan_cache_dir\nscan = scan_cache_dir()\n"
                               "print(json.dumps([len(scan.warnings), [r.repo_id for r in scan.repos], "
                               "sorted(f.file_name for r in scan.repos for v in r.revisions for f in v.files)]))")
        check("Python's scan of the cache has no complaint", scan == [0, [MODEL_ID], FILES])
        blob = (folder / "model.safetensors").resolve()
        before = blob.stat()
        python(online, snapshot())
        after = blob.stat()
        check("Python adds what it wants beside and does not fetch the weights again",
              (folder / "README.md").is_file()
              and (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns))
        classify_with_transformers(offline, expected)


def without_links(program, endpoint, expected):
    with tempfile.TemporaryDirectory() as home:
        online = environment(endpoint, home, HF_HUB_DISABLE_SYMLINKS="1")
        check("agnews fills a cache without links", agnews(program, online, "-m", MODEL_ID) == expected)
        folder = Path(python({**online, "HF_HUB_OFFLINE": "1"}, snapshot()))
        weights = folder / "model.safetensors"
        check("Python finds it offline", weights.is_file() and not weights.is_symlink())


def at_once(program, endpoint, expected):
    with tempfile.TemporaryDirectory() as home:
        online = environment(endpoint, home)
        code = f"from huggingface_hub import snapshot_download\nsnapshot_download({MODEL_ID!r})"
        start = lambda *command: subprocess.Popen(command, env=online, stdout=subprocess.PIPE, text=True)
        children = [start(*command) for _ in range(4)
                    for command in [(sys.executable, "-c", code), (program, "--scores", "-m", MODEL_ID, TEXT)]]
        answers = [child.communicate()[0] for child in children]
        check("four of each at once all succeed", all(child.returncode == 0 for child in children))
        check("and all four answers are right", answers[1::2] == [expected] * 4)
        left = [path for path in Path(home).rglob("*") if path.name.endswith((".incomplete", ".tmp"))]
        check("and leave nothing half done", left == [])


def classify_with_transformers(offline, expected):
    try:
        import transformers  # noqa: F401
    except ImportError:
        print("skipped  transformers is not installed")
        return
    label = python(offline, "import torch, transformers\n"
                            f"tokenizer = transformers.AutoTokenizer.from_pretrained({MODEL_ID!r})\n"
                            f"model = transformers.AutoModelForSequenceClassification.from_pretrained({MODEL_ID!r})\n"
                            f"logits = model(**tokenizer({TEXT!r}, return_tensors='pt')).logits\n"
                            "print(json.dumps(int(logits.argmax())))")
    check("transformers classifies from the cache that agnews has filled", str(label) == expected.split("\t")[0])


def interrupted(program, endpoint, expected):
    with tempfile.TemporaryDirectory() as home:
        online = environment(endpoint, home)
        child = subprocess.Popen([program, "-m", MODEL_ID, TEXT], env=online, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        python(online, snapshot())
        answer = agnews(program, environment("http://127.0.0.1:9", home), "-m", MODEL_ID, "--offline")
        check("what a killed agnews has left does not hinder Python", answer == expected)


def main():
    subprocess.run(["cargo", "build", "--quiet"], check=True)
    program = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/agnews"
    server = subprocess.Popen(
        ["cargo", "test", "--quiet", "--test", "it", "serves_until_standard_input_ends", "--", "--ignored", "--nocapture"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    endpoint = next(line.split()[1] for line in server.stdout if line.startswith("endpoint "))
    expected = agnews(program, environment(endpoint, "/nonexistent"), "-m", "builtin")
    print(f"huggingface_hub {importlib.metadata.version('huggingface_hub')}, Python {sys.version.split()[0]}")
    filled_by_python(program, endpoint, expected)
    filled_by_agnews(program, endpoint, expected)
    without_links(program, endpoint, expected)
    at_once(program, endpoint, expected)
    interrupted(program, endpoint, expected)
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main()
