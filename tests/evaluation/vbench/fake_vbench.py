"""A stand-in for VBench's command with the same arguments, files and habits; its numbers mean nothing.

It accepts what `vbench evaluate` of version 0.1.5 accepts, and also hides the exit code of the measuring process.
$FAKE_VBENCH selects a fault: `fail`, `die` (killed half way), `hang`, `garbage`, `short`, `nan`; `rows` gives rows as
the real one writes them.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="vbench")
    verb = parser.add_subparsers().add_parser("evaluate")
    verb.add_argument("--ngpus", type=int, default=1)
    verb.add_argument("--output_path", default="./evaluation_results/")
    verb.add_argument("--full_json_dir", default="VBench_full_info.json")
    verb.add_argument("--videos_path", required=True)
    verb.add_argument("--dimension", required=True)
    verb.add_argument("--load_ckpt_from_local", type=bool)
    verb.add_argument("--read_frame", type=bool)
    verb.add_argument("--mode", default="vbench_standard")
    verb.add_argument("--prompt", default="None")
    verb.add_argument("--prompt_file")
    args = parser.parse_args()
    words = [f"--{name} {value}" for name, value in vars(args).items() if value is not None and name != "ngpus"]
    # Through a shell, by the name `python`, and without a look at the exit code: as the real one does.
    done = subprocess.run(f"python {Path(__file__).resolve()} MEASURE {' '.join(words)}", shell=True, check=False)
    if done.returncode:
        sys.stderr.write("torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\nexitcode: 1\n")


def measure(words: list[str]) -> None:
    args = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    assert args["mode"] == "custom_input"
    output, dimension, wrong = Path(args["output_path"]), args["dimension"], os.environ.get("FAKE_VBENCH", "")
    output.mkdir(parents=True, exist_ok=True)
    found = sorted(p.name for p in Path(args["videos_path"]).iterdir() if p.suffix in (".mp4", ".gif"))
    prompts = {name: re.sub(r"-\d+$", "", Path(name).stem) for name in found}
    if "prompt_file" in args:
        given = json.loads(Path(args["prompt_file"]).read_text())
        assert isinstance(given, dict)
        assert set(found) <= set(given), "The prompts for the following videos are not found in the prompt file"
        prompts = given
    name = f"results_{time.strftime('%Y-%m-%d-%H:%M:%S')}"
    info = [{"prompt_en": prompts[v], "dimension": [dimension], "video_list": [v]} for v in found]
    (output / f"{name}_full_info.json").write_text(json.dumps(info))
    if wrong == "fail":
        raise RuntimeError("Found no NVIDIA driver on your system.")
    if wrong == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if wrong == "hang":
        Path(args["videos_path"], "../pid").write_text(str(os.getpid()))
        time.sleep(600)
    rows = [
        {"video_path": os.path.join(args["videos_path"], v), "video_results": (len(prompts[v]) % 10) / 10}  # noqa: PTH118
        for v in found
    ]
    total = sum(row["video_results"] for row in rows) / len(rows)
    if dimension == "imaging_quality":
        for row in rows:
            row["video_results"] *= 100
    if wrong == "rows":  # What its functions write for each dimension: more keys, and whether there is motion.
        for row in rows:
            if dimension == "background_consistency":
                row |= {"video_sim": 15 * row["video_results"], "cnt_per_video": 15}
            if dimension == "dynamic_degree":
                row["video_results"] = row["video_results"] > 0.5
        rows.reverse()  # Of a folder it reads the names in no order.
    result = {dimension: [float("nan") if wrong == "nan" else total, rows[1:] if wrong == "short" else rows]}
    text = "{" if wrong == "garbage" else json.dumps(result, indent=4)
    (output / f"{name}_eval_results.json").write_text(text)
    with Path("../calls.txt").open("a") as file:
        file.write(f"{dimension}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["MEASURE"]:
        measure(sys.argv[2:])
    else:
        main()
