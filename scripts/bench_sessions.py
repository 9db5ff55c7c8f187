#!/usr/bin/env python3
"""What sessions cost: records and bytes in Kafka, the way back after a node's death, the replay of a node.

  scripts/with-kafka.sh python3 scripts/bench_sessions.py [--only records,idle,resume,far,connect,replay] [--write FILE]

Kafka, the load and the nodes share the cores. Needs release builds (`make bench-sessions` makes them); with --debug it
uses debug builds and small numbers, to see that it works: such figures are never written.
"""
import argparse
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench_broker import ROOT, cpu_name, free_port, java_version, notes, text_of

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PARTITIONS = 16
# Open files that are no connections.
FILES_BESIDES = 300
# A node that is not ready by then will not be.
READY_S = 600
EXPIRY_S = 3600
# A connection from an address becomes slow to open once half of its 28,000 ports are in use.
SOURCES = "127.0.0.1-127.0.0.4"
# Messages a second of others beside idle sessions.
TRICKLE = 20
STATE_KINDS = ("subscriptions", "position", "inbound", "outbound", "due")


class Bench:
    """What all measurements share: programs, Kafka, numbers."""

    def __init__(self, arguments, bootstrap, folder):
        self.arguments, self.bootstrap, self.folder = arguments, bootstrap, Path(folder)
        self.build = TARGET / ("debug" if arguments.debug else "release")
        self.nodes, self.loads = [], []
        self.number = 0

    def scaled(self, full, quick):
        return quick if self.arguments.debug else full

    def cluster(self, name):
        """Kafka topics of their own for each measurement, so that none replays what another wrote."""
        return Cluster(self, f"{name}-{os.getpid()}")

    def tool(self, *arguments):
        """The newest build of benches/sessions. Cargo is not asked: it would put a node with the features of tests in place
        of the one that is measured."""
        builds = [path for path in (self.build / "deps").glob("sessions-*") if not path.suffix]
        if not builds:
            sys.exit("benches/sessions is not built: use `make bench-sessions`")
        return run([max(builds, key=lambda path: path.stat().st_mtime), *arguments]).stdout

    def loadsim(self, nodes, command, *arguments):
        """A load that runs; `result` waits for it."""
        first, *others = nodes
        fallbacks = [word for node in others for word in ("--fallback", f"127.0.0.1:{node.port}")]
        call = [self.build / "loadsim", command, "--broker", f"127.0.0.1:{first.port}", *fallbacks, "--json",
                "--protocol", "5", "--session-expiry-s", EXPIRY_S, *arguments]
        load = subprocess.Popen([str(word) for word in call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.loads.append(load)
        return load

    def stop(self):
        for node in self.nodes:
            node.stop()
        for load in self.loads:
            load.kill()
            load.wait()


def run(call, **options):
    done = subprocess.run([str(word) for word in call], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, call))}\n{done.stdout}{done.stderr}")
    return done


def result(load, may_fail=False):
    out, err = load.communicate()
    if load.returncode != 0 and not (may_fail and out):
        sys.exit(f"{' '.join(load.args)} ended with {load.returncode}\n{out}{err}")
    return json.loads(out)


class Cluster:
    """The kafka topics of one measurement and the nodes on them."""

    def __init__(self, bench, name):
        self.bench, self.name = bench, name
        self.messages, self.sessions = f"{name}.messages", f"{name}.sessions"
        run([bench.build / "millrace", "topics", "apply", *self.settings()])

    def settings(self):
        keys = {"kafka.bootstrap": self.bench.bootstrap, "auth.anonymous": "true",
                "mapping.default_topic": self.messages, "topics.messages.partitions": PARTITIONS,
                "topics.sessions.name": self.sessions, "topics.sessions.partitions": PARTITIONS,
                "topics.retained.name": f"{self.name}.retained", "topics.cluster.name": f"{self.name}.cluster",
                "topics.replication_factor": 1, "topics.min_insync_replicas": 1}
        return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]

    def node(self):
        node = Node(self)
        self.bench.nodes.append(node)
        return node

    def census(self, before=None):
        since = ["--from", ",".join(map(str, before["ends"]))] if before else []
        out = self.bench.tool("census", "--kafka", self.bench.bootstrap, "--sessions", self.sessions, *since)
        return json.loads(out)

    def seed(self, count, churn):
        # Claims come from count on, after those of the sessions themselves.
        self.bench.tool("seed", "--kafka", self.bench.bootstrap, "--sessions", self.sessions, "--messages", self.messages,
                        "--count", count, "--churn", churn)


class Node:
    """A node; ready when this is made. `ready_s`: from its start until then."""

    def __init__(self, cluster):
        bench = cluster.bench
        bench.number += 1
        self.port, self.ops = free_port(), free_port()
        log = open(bench.folder / f"node-{bench.number}.log", "w")
        command = [bench.build / "millrace", "serve", *cluster.settings(), "--set", f"node.id=n{bench.number}",
                   "--set", f"listen.mqtt=127.0.0.1:{self.port}", "--set", f"ops.address=127.0.0.1:{self.ops}",
                   "--set", "shutdown.accept_grace=0s"]
        began = time.monotonic()
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > began + READY_S:
                sys.exit(f"a node did not get ready: {Path(log.name).read_text()[-3000:]}")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - began

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/readyz", timeout=2) as page:
                return page.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/metrics") as page:
            found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([\d.e+]+)$", page.read().decode(), re.M)
        return sum(map(float, found))

    def rss_mib(self):
        return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.M)[1]) / 1024

    def wait_for(self, subscriptions, load):
        while self.metric("millrace_subscriptions") < subscriptions:
            if load.poll() is not None:
                result(load)
                sys.exit("the load ended before everybody had subscribed")
            time.sleep(0.2)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


# --- measurements -----------------------------------------------------------


def records(bench):
    """State records per published and per delivered message."""
    rows = []
    clients = bench.scaled(100, 10)
    seconds = bench.scaled(20, 5)
    for qos in (1, 2):
        for rate in (clients // 2, bench.scaled(2000, 100)):
            cluster = bench.cluster(f"records-{qos}-{rate}")
            node = cluster.node()
            load = bench.loadsim([node], "bench", "--publishers", clients, "--subscribers", clients, "--rate", rate, "--qos",
                                 qos, "--duration-s", seconds, "--warm-up-s", 0)
            node.wait_for(clients, load)
            report = result(load, may_fail=True)
            census = cluster.census()
            rows.append({"qos": qos, "rate": rate, "clients": clients, "kinds": kinds(census),
                         "published": report["whole_run"]["acked"], "delivered": report["whole_run"]["delivered"],
                         "proof": [report["whole_run"][name] for name in ("lost", "duplicated", "reordered")]})
            node.stop()
    return rows


def kinds(census):
    return {kind: count for kind, count in census["kinds"].items()}


def idle(bench):
    """State bytes per second of sessions that keep up, idle and busy."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - FILES_BESIDES
    many = bench.scaled(bench.arguments.idle, 200)
    each = min(bench.scaled(limit, 100), limit)
    busy = min(bench.scaled(10_000, 100), limit)
    crowds = [("idle", min(many // 10, each), 0), ("idle", many, 0), ("busy", busy, bench.scaled(1000, 50))]
    return [crowd(bench, *of, each) for of in crowds]


def crowd(bench, name, sessions, rate, each):
    """Sessions on as many nodes as open files demand. While they are idle others publish, so that watermarks move."""
    cluster = bench.cluster(f"{name}-{sessions}")
    seconds = bench.scaled(30, 10)
    count = -(-sessions // each)
    shares = [sessions // count + (number < sessions % count) for number in range(count)]
    nodes, loads = [], []
    for share in shares:
        node = cluster.node()
        if rate:
            load = bench.loadsim([node], "resume", "--subscribers", share, "--rate", rate, "--probes", 0,
                                 "--duration-s", seconds * 2 + 30)
        else:
            load = bench.loadsim([node], "sub", "--subscribers", share, "--filter", "idle/{run}/{i}", "--keep-alive-s", 600,
                                 "--connect-timeout-s", 60, "--connect-rate", 800, "--source-addresses", SOURCES)
        node.wait_for(share, load)
        nodes, loads = [*nodes, node], [*loads, load]
    if not rate:
        loads.append(bench.loadsim(nodes[:1], "pub", "--publishers", PARTITIONS, "--rate", TRICKLE, "--duration-s", 3600))
    time.sleep(bench.scaled(10, 2))
    before, began = cluster.census(), time.monotonic()
    time.sleep(seconds)
    after, took = cluster.census(before), time.monotonic() - began
    for load in loads:
        if load.poll() is not None:
            sys.exit(f"the load ended before its time: {load.communicate()}")
    counts = after["kinds"].values()
    row = {"name": name, "sessions": sessions, "nodes": count, "rate": rate or TRICKLE, "seconds": took, "kinds": kinds(after),
           "records_per_s": sum(count["records"] for count in counts) / took,
           "bytes_per_s": sum(count["bytes"] for count in counts) / took, "rss_mib": sum(node.rss_mib() for node in nodes)}
    bench.stop()
    return row


def resume(bench, foreign_gb=0):
    """A node dies under its clients, and another takes them."""
    cluster = bench.cluster("far" if foreign_gb else "resume")
    first, second = cluster.node(), cluster.node()
    subscribers = bench.scaled(10000, 200)
    kill_after_s = bench.scaled(20, 5)
    limits = ["--rate", bench.scaled(1000, 100), "--duration-s", kill_after_s + bench.scaled(25, 15)]
    if foreign_gb:
        # One message each, then silence while the foreign records are written.
        kill_after_s += 20 + int(foreign_gb * bench.arguments.foreign_s_per_gb)
        limits = ["--rate", bench.scaled(2000, 100), "--count", subscribers]
    load = bench.loadsim([first, second], "resume", "--subscribers", subscribers, "--kill-pid", first.process.pid,
                         "--kill-after-s", kill_after_s, "--drain-s", 120, *limits)
    written_gb, began = 0, time.monotonic()
    if foreign_gb:
        first.wait_for(subscribers, load)
        time.sleep(subscribers / 2000 + 5)
        written_gb = write_foreign(bench, cluster, foreign_gb)
        if time.monotonic() > began + kill_after_s:
            sys.exit(f"{foreign_gb} GB took longer than {kill_after_s} s: give more --foreign-s-per-gb")
    report = result(load, may_fail=True)
    second.stop()
    run_of = report["whole_run"]
    return {"subscribers": subscribers, "foreign_gb": written_gb, "returns": report.get("returns"),
            "latency": report["latency_us"], "proof": [run_of[name] for name in ("lost", "duplicated", "reordered")],
            "errors": report["errors"]}


def write_foreign(bench, cluster, gigabytes):
    bytes_each = 10_000
    count = int(gigabytes * 1e9 / bytes_each)
    # Made up beforehand: making up each record takes longer than writing it.
    payload = bench.folder / "payload"
    payload.write_text("x" * bytes_each + "\n")
    run([ROOT / "scripts/kafka-tool.sh", "producer-perf-test", "--topic", cluster.messages, "--num-records", count,
         "--payload-file", payload, "--throughput", -1, "--producer-props", f"bootstrap.servers={bench.bootstrap}",
         "batch.size=500000", "linger.ms=20"])
    return gigabytes


def far(bench):
    return resume(bench, bench.scaled(bench.arguments.foreign_gb, 0.05))


def connect(bench):
    """CONNECT of a resume and of a clean start beside the acknowledgement of a publish, nothing else going on."""
    cluster = bench.cluster("connect")
    node = cluster.node()
    load = bench.loadsim([node], "resume", "--subscribers", bench.scaled(1000, 50), "--rate", bench.scaled(500, 50),
                         "--probes", bench.scaled(100, 10), "--duration-s", bench.scaled(30, 10))
    report = result(load, may_fail=True)
    node.stop()
    return {"latency": report["latency_us"], "errors": report["errors"]}


def replay(bench):
    """The start of a node on many sessions, clean and after churn."""
    rows = []
    count = bench.scaled(bench.arguments.sessions, 5000)
    churn = bench.scaled(bench.arguments.churn, 2000)
    empty = bench.cluster("empty").node()
    rows.append({"name": "no sessions", "ready_s": empty.ready_s, "rss_mib": empty.rss_mib(), "records": 0})
    empty.stop()
    for name, of_churn in (("clean", 0), ("after churn", churn)):
        cluster = bench.cluster(f"replay-{of_churn}")
        # A node first: it writes who it is, and the generation that sessions belong to.
        cluster.node().stop()
        cluster.seed(count, of_churn)
        node = cluster.node()
        # Until its reading has settled in memory.
        time.sleep(2)
        census = cluster.census()
        rows.append({"name": name, "sessions": count, "churn": of_churn, "ready_s": node.ready_s,
                     "rss_mib": node.rss_mib(), "records": sum(kind["records"] for kind in census["kinds"].values()),
                     "bytes": sum(kind["bytes"] for kind in census["kinds"].values())})
        node.stop()
    return rows


MEASUREMENTS = {"records": records, "idle": idle, "resume": resume, "far": far, "connect": connect, "replay": replay}


# --- the page ---------------------------------------------------------------


def ms(micros):
    return "–" if micros is None else f"{micros / 1000:.1f}"


def verdict(is_reached):
    return "–" if is_reached is None else "reached" if is_reached else "**missed**"


def page(figures):
    lines = [
        "# Sessions",
        "",
        f"Made by `make bench-sessions`: Kafka {os.environ.get('KAFKA_VERSION', '4.3.0')} (one node), "
        f"{text_of('rustc', '--version')}, {java_version()}, {os.cpu_count()} cores of {cpu_name()}, "
        f"Linux {platform.release().split('-')[0]}.",
        f"Kafka, the load (`loadsim`) and the nodes share these cores. MQTT 5, {PARTITIONS} partitions, acks=all.",
    ]
    parts = {"records": records_page, "idle": idle_page, "resume": resume_page, "connect": connect_page,
             "replay": replay_page}
    for name, write in parts.items():
        if name in figures:
            lines += ["", *write(figures)]
    return "\n".join(lines) + "\n"


def records_page(figures):
    lines = ["### State records per message", "",
             "Goals: about 0 at QoS 1; at QoS 2 at most 1.1 for each publish and 2.1 for each delivery. Claims, sets and "
             "subscriptions of the connecting clients are not counted here, watermarks are.", "",
             "| QoS | messages/s, clients | position | inbound per publish | outbound per delivery | watermarks | goal | lost, "
             "duplicated, reordered |", "|---|---|---|---|---|---|---|---|"]
    for row in figures["records"]:
        count = {kind: row["kinds"].get(kind, {}).get("records", 0) for kind in (*STATE_KINDS, "watermark")}
        published, delivered = max(row["published"], 1), max(row["delivered"], 1)
        inbound, outbound = count["inbound"] / published, count["outbound"] / delivered
        position = count["position"] / delivered
        is_reached = position + outbound <= 0.05 if row["qos"] == 1 else inbound <= 1.1 and outbound <= 2.1
        lines.append(f"| {row['qos']} | {row['rate']:,}, 2 × {row['clients']} | {position:.3f} | {inbound:.3f} | "
                     f"{outbound:.3f} | {count['watermark']} | {verdict(is_reached)} | "
                     f"{', '.join(map(str, row['proof']))} |")
    return lines


def idle_page(figures):
    lines = ["### What sessions that keep up write", "",
             f"Bytes of keys and values in the sessions' kafka topic. Nobody publishes to the idle sessions; {TRICKLE} messages/s "
             "of others move the ends of all partitions, without which nothing at all would be written. A watermark is at most two "
             "records for each partition and node every 5 s, whatever the number of sessions. A node has as many sessions as "
             "open files allow on this machine.", "",
             "| sessions | nodes | messages/s | state records/s | state bytes/s | of which | all nodes' memory MiB |",
             "|---|---|---|---|---|---|---|"]
    for row in figures["idle"]:
        kinds_of = ", ".join(f"{kind} {count['records']}" for kind, count in sorted(row["kinds"].items())) or "–"
        lines.append(f"| {row['sessions']:,} {row['name']} | {row['nodes']} | {row['rate']:,} | {row['records_per_s']:.1f} | "
                     f"{row['bytes_per_s']:,.0f} | {kinds_of} in {row['seconds']:.0f} s | {row['rss_mib']:.0f} |")
    return lines


def resume_page(figures):
    lines = ["### A node dies under its clients", "",
             "All clients are on the node that is killed, and turn to another one. Goal: all have caught up at most 5 s after "
             "they connected again. Times of the whole crowd count from the kill.", "",
             "| clients | last delivery back | resumed, sessions lost | all ready s | all caught up s | CONNECT p50, p99 ms | "
             "away p50, p99 ms | caught up p50, p99, max ms | goal | lost, duplicated, reordered |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for name in ("resume", "far"):
        row = figures.get(name)
        if not row:
            continue
        returns, latency = row["returns"] or {}, row["latency"]
        pair = lambda kind: f"{ms(latency.get(kind, {}).get('p50'))}, {ms(latency.get(kind, {}).get('p99'))}"
        most = latency.get("caught_up", {}).get("max")
        back = f"{row['foreign_gb']} GB of foreign records" if row["foreign_gb"] else "none"
        seconds = lambda key: "–" if returns.get(key) is None else f"{returns[key]:.1f}"
        is_reached = most is not None and most <= 5e6 and returns.get("sessions_lost") == 0
        lines.append(f"| {row['subscribers']:,} | {back} | {returns.get('resumed', 0):,}, {returns.get('sessions_lost', 0)} | "
                     f"{seconds('all_ready_s')} | {seconds('all_caught_up_s')} | {pair('resume')} | {pair('away')} | "
                     f"{pair('caught_up')}, {ms(most)} | {verdict(is_reached)} | {', '.join(map(str, row['proof']))} |")
    return lines


def connect_page(figures):
    latency = figures["connect"]["latency"]
    ack, again, clean = (latency.get(name, {}) for name in ("ack", "probe_resume", "probe_clean"))
    is_resume = again.get("p99") is not None and again["p99"] <= 2 * ack["p99"] + 10_000
    is_clean = clean.get("p99") is not None and clean["p99"] <= ack["p99"]
    lines = ["### CONNECT beside an append", "",
             "From the opening of the TCP connection to CONNACK, in the same run as PUBACK, which is one append. Goals for p99: a "
             "resume at most 2 appends and 10 ms, a clean start at most 1 append.", "",
             "| | count | p50 ms | p99 ms | goal |", "|---|---|---|---|---|"]
    for name, values, reached in (("PUBACK", ack, None), ("CONNECT that resumes", again, is_resume),
                                  ("CONNECT with a clean start", clean, is_clean)):
        lines.append(f"| {name} | {values.get('count', 0):,} | {ms(values.get('p50'))} | {ms(values.get('p99'))} | "
                     f"{verdict(reached)} |")
    return lines


def replay_page(figures):
    lines = ["### The start of a node", "",
             "From the start of the process to `/readyz`, on sessions with one subscription each that nodes left behind. Churn: so "
             "many of the sessions were claimed anew, with all records that this leaves before compaction. Goal: at most 10 s and "
             "1 GB for 1,000,000 sessions.", "",
             "| sessions | churn | records | MB | ready s | memory MiB | goal |", "|---|---|---|---|---|---|---|"]
    for row in figures["replay"]:
        sessions = row.get("sessions", 0)
        is_reached = row["ready_s"] <= 10 and row["rss_mib"] <= 1024 if sessions >= 1_000_000 else None
        lines.append(f"| {sessions:,} | {row.get('churn', 0):,} | {row['records']:,} | {row.get('bytes', 0) / 1e6:,.0f} | "
                     f"{row['ready_s']:.1f} | {row['rss_mib']:.0f} | {verdict(is_reached)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(MEASUREMENTS)}")
    parser.add_argument("--idle", type=int, default=100_000, help="idle sessions, as far as open files allow (100000)")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="sessions of a replay (1000000)")
    parser.add_argument("--churn", type=int, default=360_000,
                        help="claims in a replay after churn; 360000 are 200 a second for 30 minutes")
    parser.add_argument("--foreign-gb", type=float, default=10, help="foreign records between delivery and death (10)")
    parser.add_argument("--foreign-s-per-gb", type=float, default=15, help="time allowed for writing a GB of them (15)")
    parser.add_argument("--debug", action="store_true", help="debug builds and small numbers; nothing is written")
    parser.add_argument("--write", help="write the page to this file")
    parser.add_argument("--json", help="keep all figures in this file, and take those not measured now from it")
    arguments = parser.parse_args()
    wanted = arguments.only or list(MEASUREMENTS)
    if unknown := [name for name in wanted if name not in MEASUREMENTS]:
        sys.exit(f"no measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    bootstrap = os.environ.get("MILLRACE_TEST_KAFKA") or sys.exit("run it through scripts/with-kafka.sh")
    kept = Path(arguments.json) if arguments.json else None
    figures = json.loads(kept.read_text()) if kept and kept.exists() else {}
    failed = []
    for name in wanted:
        print(f"{name} ...", flush=True)
        try:
            figures[name] = measured(name, arguments, bootstrap)
        except SystemExit as error:
            failed.append(f"{name}: {error}")
            print(failed[-1], flush=True)
            continue
        print(json.dumps(figures[name]), flush=True)
        if kept:
            kept.write_text(json.dumps(figures, indent=1))
    text = page(figures)
    print(text)
    if arguments.write and not arguments.debug:
        path = ROOT / arguments.write
        path.write_text(text + notes(path))
    if failed:
        sys.exit("\n".join(failed))


def measured(name, arguments, bootstrap):
    """One measurement; whatever became of it, nothing of it runs afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, bootstrap, folder)
        try:
            return MEASUREMENTS[name](bench)
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
