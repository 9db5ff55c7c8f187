#!/usr/bin/env python3
"""The whole node under load, beside Kafka's own tools and mosquitto, in one run on one machine.

  scripts/with-kafka.sh python3 scripts/bench_broker.py [--seconds 15] [--write docs/benchmarks/broker.md]

Kafka, the load and the broker share the cores, so every rate stands beside the broker's CPU time per message. mosquitto
is there for scale only: it writes to no Kafka and waits for none. Needs release builds (`make bench-broker` makes them).
"""
import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
PAYLOAD_BYTES = 500
PARTITIONS = 8


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, name):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode} before it listened on port {port}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{name} does not listen on port {port}")


def text_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Broker:
    """A broker process on a port of its own; stopped by its process id."""

    def __init__(self, name, port, command):
        self.name, self.port = name, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(port, self.process, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def loadsim(self, command, *arguments):
        call = [RELEASE / "loadsim", command, "--broker", f"127.0.0.1:{self.port}", "--json", "--allow-loss",
                "--pid", str(self.process.pid), *map(str, arguments)]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, call))}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)


def millrace(bootstrap, topic):
    port, ops = free_port(), free_port()
    broker = Broker("millrace", port, [
        RELEASE / "millrace", "dev", "--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops}", "--kafka", bootstrap,
        "--set", f"mapping.default_topic={topic}", "--set", f"topics.messages.partitions={PARTITIONS}"])
    broker.ops = ops
    return broker


def mosquitto(folder):
    port = free_port()
    config = Path(folder) / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n"
                      "set_tcp_nodelay true\n"
                      "max_queued_messages 0\nmax_inflight_messages 0\n")
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    return Broker("mosquitto", port, [path, "-c", config]) if path else None


def kafka_tool(name, *arguments):
    done = subprocess.run([ROOT / "scripts/kafka-tool.sh", name, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"kafka-tool.sh {name}: {done.stdout}{done.stderr}")
    return done.stdout


def kafka_topic(bootstrap, topic):
    kafka_tool("topics", "--bootstrap-server", bootstrap, "--create", "--topic", topic, "--partitions", PARTITIONS,
               "--replication-factor", 1)


def producer_tool(bootstrap):
    """Kafka's own producer: records per second with the same size and acks."""
    topic = "bench-producer-tool"
    kafka_topic(bootstrap, topic)
    out = kafka_tool("producer-perf-test", "--topic", topic, "--num-records", 600000, "--record-size", PAYLOAD_BYTES,
                     "--throughput", -1, "--producer-props", f"bootstrap.servers={bootstrap}", "acks=all")
    return float(re.findall(r"([\d.]+) records/sec", out)[-1])


def latency_tool(bootstrap):
    """Kafka's own end-to-end latency, one record at a time: p50 and p99 in milliseconds."""
    topic = "bench-latency-tool"
    kafka_topic(bootstrap, topic)
    if os.environ.get("KAFKA_VERSION", "4").startswith("3"):
        out = kafka_tool("e2e-latency", bootstrap, topic, 3000, "all", PAYLOAD_BYTES)
    else:
        out = kafka_tool("e2e-latency", "--bootstrap-server", bootstrap, "--topic", topic, "--num-records", 3000,
                         "--producer-acks", "all", "--record-size", PAYLOAD_BYTES)
    found = re.search(r"50th = (\d+), 99th = (\d+)", out)
    return float(found[1]), float(found[2])


def lost(report):
    run = report.get("whole_run") or {}
    return run.get("lost", 0), run.get("duplicated", 0), run.get("reordered", 0)


def publishing(broker, publishers, rate, seconds, window=None):
    extra = ["--window", window] if window else []
    report = broker.loadsim("pub", "--publishers", publishers, "--rate", rate, "--duration-s", seconds, "--payload-bytes",
                            PAYLOAD_BYTES, "--connect-rate", 2000, *extra)
    return {
        "connections": publishers,
        "rate": rate,
        "acked_per_s": report["messages"]["acked_per_s"],
        "broker_us": report["process"].get("cpu_us_per_message"),
        "loadsim_us": report["loadsim"].get("cpu_us_per_message"),
        "ack": report["latency_us"].get("ack", {}),
    }


def idle(broker, connections):
    before = memory_kib(broker.process.pid)
    report = broker.loadsim("conn", "--connections", connections, "--connect-rate", 2000, "--duration-s", 10)
    # The report reads memory while the connections are held.
    held = report["process"]
    ready = report["connections"]["ready"]
    return {"connections": ready, "rss": (held["rss_kib"] - before[0]) / ready, "pss": (held["pss_kib"] - before[1]) / ready}


def memory_kib(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", rollup, re.M)[1]) for name in ("Rss", "Pss"))


def end_to_end(broker, rate, seconds):
    report = broker.loadsim("bench", "--publishers", 50, "--subscribers", 50, "--rate", rate, "--duration-s", seconds,
                            "--payload-bytes", PAYLOAD_BYTES)
    return {"rate": rate, "ack": report["latency_us"]["ack"], "e2e": report["latency_us"]["end_to_end"],
            "broker_us": report["process"].get("cpu_us_per_message"), "lost": lost(report)}


def measure(bootstrap, arguments):
    seconds = arguments.seconds
    result = {"brokers": {}}
    print("kafka-producer-perf-test ...", flush=True)
    result["producer_tool"] = producer_tool(bootstrap)
    print("Kafka's end-to-end latency ...", flush=True)
    result["latency_tool"] = latency_tool(bootstrap)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("millrace", "mosquitto"):
            starts = {"millrace": lambda: millrace(bootstrap, "bench-broker"), "mosquitto": lambda: mosquitto(folder)}
            figures = {"publishing": []}
            for what, run in runs(seconds, arguments.connections):
                print(f"{name}: {what} ...", flush=True)
                broker = starts[name]()
                if broker is None:
                    print("mosquitto is not installed: left out")
                    break
                with broker:
                    run(broker, figures)
                    if name == "millrace" and arguments.metrics:
                        with urllib.request.urlopen(f"http://127.0.0.1:{broker.ops}/metrics") as page:
                            Path(arguments.metrics).write_bytes(page.read())
            else:
                result["brokers"][name] = figures
    return result


def runs(seconds, many):
    """Each on a broker of its own, so that none inherits memory or queues of the one before."""
    def publish(*load, **extra):
        return lambda broker, figures: figures["publishing"].append(publishing(broker, *load, seconds, **extra))
    yield "idle connections", lambda broker, figures: figures.update(idle=idle(broker, many))
    yield "5,000/s over 100 connections", publish(100, 5000)
    yield f"5,000/s over {many:,} connections", publish(many, 5000)
    yield "full rate over 100 connections", publish(100, "max", window=64)
    yield "end to end at 2,000/s", lambda broker, figures: figures.update(e2e=end_to_end(broker, 2000, seconds))


def ms(value):
    return "–" if value is None else f"{value / 1000:.1f}"


def table(result, command):
    kafka_version = os.environ.get("KAFKA_VERSION", "4.3.0")
    lines = [
        "# A node under load",
        "",
        f"Made by `{command}`: Kafka {kafka_version} (one node), {text_of('rustc', '--version')}, "
        f"{java_version()}, {os.cpu_count()} cores of {cpu_name()}, Linux {platform.release().split('-')[0]}.",
        "Kafka, the load (`loadsim`) and the broker share these cores: read a rate together with the CPU time beside it.",
        f"Payload {PAYLOAD_BYTES} bytes, QoS 1, acks=all, {PARTITIONS} partitions, MQTT 3.1.1. mosquitto writes to no Kafka"
        " and waits for none: it is here for scale.",
        "",
        "| publishing | broker | acked/s | broker CPU µs per publish | loadsim CPU µs | ack p50 ms | ack p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in result["brokers"].items():
        for row in figures["publishing"]:
            rate = "full rate" if row["rate"] == "max" else f"{row['rate']:,}/s"
            lines.append(f"| {row['connections']:,} connections, {rate} | {name} | {row['acked_per_s']:,.0f} | "
                         f"{row['broker_us']:.1f} | {row['loadsim_us']:.1f} | {ms(row['ack'].get('p50'))} | "
                         f"{ms(row['ack'].get('p99'))} |")
    lines += ["", f"`kafka-producer-perf-test` in the same run: {result['producer_tool']:,.0f} records/s.", "",
              "| idle connections | broker | Pss KiB per connection | Rss KiB per connection |", "|---|---|---|---|"]
    for name, figures in result["brokers"].items():
        row = figures["idle"]
        lines.append(f"| {row['connections']:,} | {name} | {row['pss']:.2f} | {row['rss']:.2f} |")
    lines += ["", "| MQTT → broker → MQTT, 2,000/s | p50 ms | p99 ms | broker CPU µs per message | lost, duplicated, "
              "reordered |", "|---|---|---|---|---|"]
    for name, figures in result["brokers"].items():
        row = figures["e2e"]
        way = "millrace, through Kafka" if name == "millrace" else name
        lines.append(f"| {way} | {ms(row['e2e'].get('p50'))} | {ms(row['e2e'].get('p99'))} | {row['broker_us']:.1f} | "
                     f"{', '.join(map(str, row['lost']))} |")
    p50, p99 = result["latency_tool"]
    lines.append(f"| Kafka's own end-to-end tool, one record at a time | {p50:.1f} | {p99:.1f} | – | – |")
    return "\n".join(lines) + "\n"


def java_version():
    return subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]


def cpu_name():
    return re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=15, help="measured time of each run (15)")
    parser.add_argument("--connections", type=int, default=10000, help="the large number of connections (10000)")
    parser.add_argument("--write", help="write the table to this file")
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--metrics", help="write the node's last metrics page to this file")
    arguments = parser.parse_args()
    bootstrap = os.environ.get("MILLRACE_TEST_KAFKA") or sys.exit("run it through scripts/with-kafka.sh")
    result = measure(bootstrap, arguments)
    text = table(result, "make bench-broker")
    print(text)
    if arguments.write:
        (ROOT / arguments.write).write_text(text + notes(ROOT / arguments.write))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1))


def notes(path):
    """What people wrote below the figures stays."""
    marker = "\n## "
    before = path.read_text() if path.exists() else ""
    return before[before.index(marker):] if marker in before else ""


if __name__ == "__main__":
    main()
