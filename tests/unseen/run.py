"""Programs that were written from the rules' description alone, run against a checkout of gradwatch.

    run.py CHECKOUT open|held|all [--json] [--only SUBSTRING ...] [--python PY] [--jobs N] [--fork] [--verbose]

Each program runs in a fresh subprocess with the checkout (or its src/) at the head of PYTHONPATH.
With --fork it is a fork of a process that has imported torch and gradwatch (and tracked nothing): as fresh, and some ten times as fast.
found:   an expected rule fired at a step in [at, at + patience] (patience: EXPECTED's own, else 25)
module:  one of these alerts names an acceptable module (exact path; '~' marks a parent or child of one)
cause:   one of the alerts of that rule (those with the right module, if there are any; also later 'explained' events) has an acceptable cause
early:   critical or warning alerts of a fault program before its fault begins
healthy: any critical or warning alert is a false alarm
Programs whose expectation an expert could argue about carry a doubt ('?'); totals are given with and without them.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 25


def child(path):
    """In the subprocess: run one program, print one line of JSON."""
    import contextlib
    import importlib.util
    import logging
    import time
    import traceback
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.NOTSET)
    import torch

    torch.set_num_threads(1)
    out = {"error": None, "alerts": [], "file": None}
    import gradwatch

    out["file"] = getattr(gradwatch, "__file__", None)
    spec = importlib.util.spec_from_file_location("program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    watches = []

    @contextlib.contextmanager
    def track(*args, **kwargs):
        with gradwatch.track(*args, **kwargs) as watch:
            watches.append(watch)
            yield watch

    started = time.time()
    try:
        program.train(track, program.STEPS)
    except Exception:
        out["error"] = traceback.format_exc()[-1500:]
    out["seconds"] = time.time() - started

    def plain(v):
        return v if isinstance(v, (int, float, str, bool, type(None))) else str(v)

    for watch in watches:
        for a in list(getattr(watch, "alerts", []) or []):
            cause = getattr(a, "cause", None)
            row = {k: plain(getattr(a, k, None)) for k in ("rule", "severity", "module", "optimizer", "step", "state", "message")}
            row["cause"] = plain(getattr(cause, "kind", None)) if cause is not None else None
            row["where"] = plain(getattr(cause, "where", None)) if cause is not None else None
            out["alerts"].append(row)
    expected = getattr(program, "EXPECTED", None)
    if expected is not None:
        expected = dict(expected)
        for k in ("rules", "causes"):
            if expected.get(k) is not None:
                expected[k] = sorted(expected[k], key=str)
        m = expected.get("module")
        expected["module"] = None if m is None else [m] if isinstance(m, str) else list(m)
        out["doubt"] = expected.get("doubt")
    else:
        out["doubt"] = getattr(program, "DOUBT", None)
    out["expected"] = expected
    print("\nRESULT " + json.dumps(out))


def serve(timeout, paths):
    """Import once, then one fork a program."""
    import signal

    import torch

    torch.set_num_threads(1)
    import gradwatch  # noqa: F401

    layer = torch.nn.Linear(2, 2)
    for cls in (torch.optim.Adam, torch.optim.SGD):  # the imports of a first step
        opt = cls(layer.parameters(), 1e-3)
        layer(torch.ones(1, 2)).sum().backward()
        opt.step()
    for path in paths:
        print("\nBEGIN " + path, flush=True)
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(timeout))  # its default action ends the fork
            sys.stderr = sys.stdout
            code = 1
            try:
                child(path)
                code = 0
            except BaseException as e:
                print("\nFAILED " + repr(e)[:800])
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(f"\nEND {status}", flush=True)


def related(a, b):
    return a is not None and b is not None and (a.startswith(b + ".") or b.startswith(a + "."))


def judge(r):
    """What the alerts of one program are worth."""
    e = r["expected"]
    live = [a for a in r["alerts"] if a["state"] != "resolved"]
    step = lambda a: a["step"] if isinstance(a["step"], (int, float)) else -1
    if e is None:
        return {"alarms": [a for a in live if a["severity"] in ("critical", "warning", None)]}
    name = e.get("optimizer")
    mine = [a for a in live if a["rule"] in e["rules"] and (name is None or a["optimizer"] in (name, None))]
    last = e["at"] + e.get("patience", PATIENCE)
    hits = [a for a in mine if e["at"] <= step(a) <= last]
    after = [a for a in mine if step(a) >= e["at"]]
    any_rule = [a for a in live if e["at"] <= step(a) <= last]
    v = {"caught_somehow": bool(any_rule), "found": bool(hits), "early": [a for a in live if step(a) < e["at"]],
         "other": sorted({a["rule"] for a in live if a["rule"] not in e["rules"]})}
    right = hits
    if e["module"] is None:
        v["module"] = None
    else:
        right = [a for a in hits if a["module"] in e["module"]]
        v["module"] = bool(right)
        v["near"] = any(related(a["module"], m) for a in hits for m in e["module"])
    if e.get("causes") is None:
        v["cause"] = None
    else:
        pool = [a for a in after if e["module"] is None or not right or a["module"] in e["module"]] if hits else []
        v["cause"] = any(a["cause"] in e["causes"] for a in pool)
    v["seen"] = sorted({f"{a['rule']}@{a['module']}:{a['cause']}" for a in after}) or sorted({f"{a['rule']}@{a['module']}:{a['cause']}" for a in any_rule})
    return v


def main():
    p = argparse.ArgumentParser()
    p.add_argument("checkout")
    p.add_argument("half", choices=["open", "held", "all"])
    p.add_argument("--json", action="store_true")
    p.add_argument("--only", nargs="*", default=[])
    p.add_argument("--python")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--timeout", type=float, default=180)
    p.add_argument("--fork", action="store_true")
    p.add_argument("--verbose", action="store_true")
    o = p.parse_args()
    checkout = pathlib.Path(o.checkout).resolve()
    base = checkout / "src" if (checkout / "src" / "gradwatch").exists() else checkout
    own = checkout / ".venv" / "bin" / "python"
    python = o.python or str(own if own.exists() else sys.executable)
    halves = ["open", "held"] if o.half == "all" else [o.half]
    files = [f for h in halves for f in sorted((HERE / h).glob("*.py")) if not o.only or any(s in f.stem for s in o.only)]
    env = dict(os.environ, PYTHONPATH=str(base), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")

    def run(f):
        with tempfile.TemporaryDirectory() as cwd:
            try:
                d = subprocess.run([python, str(HERE / "run.py"), "--one", str(f)], env=env, cwd=cwd, capture_output=True, text=True, timeout=o.timeout)
                line = [s for s in d.stdout.splitlines() if s.startswith("RESULT ")]
                r = json.loads(line[-1][7:]) if line else {"error": (d.stderr or d.stdout)[-1500:]}
            except subprocess.TimeoutExpired:
                r = {"error": f"timeout of {o.timeout} s"}
        return finish(f, r)

    def finish(f, r):
        r["name"], r["half"] = f.stem, f.parent.name
        if "expected" in r:
            r["foreign"] = not str(r.get("file") or "").startswith(str(base) + os.sep)
            r["verdict"] = judge(r)
        if not o.json:
            print(row(r, o.verbose), flush=True)
        return r

    if not o.json:
        print(f"{'program':44} found module cause   seen")

    def forked(part):
        done = []
        with tempfile.TemporaryDirectory() as cwd:
            cmd = [python, str(HERE / "run.py"), "--serve", str(o.timeout), *map(str, part)]
            d = subprocess.Popen(cmd, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace")
            name, r = None, None
            for line in d.stdout:
                if line.startswith("BEGIN "):
                    name, r = pathlib.Path(line[6:].strip()), None
                elif line.startswith("RESULT "):
                    r = json.loads(line[7:])
                elif line.startswith("FAILED "):
                    r = {"error": line[7:].strip()}
                elif line.startswith("END ") and name:
                    done.append(finish(name, r or {"error": f"no result, wait status {line[4:].strip()} (14: timeout)"}))
                    name = None
            d.wait()
            seen = {r["name"] for r in done}
            done += [finish(f, {"error": "the server ended before it"}) for f in part if f.stem not in seen]
        return done

    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        if o.fork:
            results = sum(pool.map(forked, [files[i::o.jobs] for i in range(o.jobs)]), [])
        else:
            results = list(pool.map(run, files))
    totals = {"all": total(results), "without_doubtful": total([r for r in results if not r.get("doubt")])}
    if o.json:
        print(json.dumps({"checkout": str(checkout), "totals": totals, "results": results}, indent=1))
    else:
        print()
        for k, t in totals.items():
            print(k.replace("_", " ") + ":", ", ".join(f"{a.replace('_', ' ')} {b}" for a, b in t.items()))
        if any(r.get("foreign") for r in results):
            print("WARNING: gradwatch was imported from elsewhere than the checkout in some programs")


def mark(v):
    return {True: "yes", False: "NO", None: "-"}[v]


def row(r, verbose):
    name = r["name"] + ("?" if r.get("doubt") else "")
    v = r.get("verdict")
    if v is None:
        return f"{name:44} ERROR {(r.get('error') or '').strip().splitlines()[-1:]}"
    err = f"   ERROR {r['error'].strip().splitlines()[-1][:120]}" if r.get("error") else ""
    if r["expected"] is None:
        kinds = sorted({f"{a['severity']} {a['rule']}@{a['module']} step {a['step']}" for a in v["alarms"]})
        return f"{name:44} {'silent' if not kinds else 'ALARM  ' + '; '.join(kinds[:4])}{err}"
    module = "near" if v["module"] is False and v.get("near") else mark(v["module"])
    text = f"{name:44} {mark(v['found']):5} {module:6} {mark(v['cause']):5}   {'; '.join(v['seen'][:3])[:150]}"
    if v["early"]:
        text += f"   early: {sorted({a['rule'] for a in v['early']})}"
    if verbose or not (v["found"] and v["module"] is not False and v["cause"] is not False):
        e = r["expected"]
        text += f"\n{'':44} expected {e['rules']} at {e['module']} by {e['causes']} from step {e['at']}: {e['say']}"
    return text + err


def total(rs):
    f = [r for r in rs if r["name"].startswith("f_")]
    h = [r for r in rs if r["name"].startswith("h_")]
    v = [r["verdict"] for r in f if r.get("verdict")]
    share = lambda k: f"{sum(x[k] is True for x in v)}/{sum(x[k] is not None for x in v)}"
    full = sum(x["found"] and x["module"] is not False and x["cause"] is not False for x in v)
    alarms = [r["verdict"]["alarms"] for r in h if r.get("verdict")]
    return {
        "faults": len(f), "found": sum(x["found"] for x in v), "some_alert": sum(x["caught_somehow"] for x in v), "right_module": share("module"), "right_cause": share("cause"), "all_right": full,
        "faults_with_early_alerts": sum(bool(x["early"]) for x in v),
        "healthy": len(h), "false_critical": sum(any(a["severity"] == "critical" for a in x) for x in alarms), "false_any": sum(bool(x) for x in alarms),
        "errors": sum(bool(r.get("error")) for r in rs),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        child(sys.argv[2])
    elif sys.argv[1:2] == ["--serve"]:
        serve(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
