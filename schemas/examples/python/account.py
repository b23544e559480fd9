"""Keeps the exact account of every campaign, from Fanfare's two public topics alone.

    total = pending + ambiguous + notSent + skipped + sent        sent = awaiting + undelivered + delivered

What makes it exact, whatever is killed, written twice or out of order (../../README.md says why):
  - a recipient's state is the greatest precedence of all events about it, so an event may come again, late or first;
  - states and positions are written in one transaction of SQLite, and a restart goes on from those positions: no event is
    missed, one that is read twice changes nothing. What is committed to Kafka, afterwards, is for those who watch the lag;
  - read_committed: an aborted transaction is not an event.

To rebuild the account from the topics, delete the state file. Several processes may share one file, or a database in its place.
"""
import argparse
import collections
import contextlib
import json
import signal
import sqlite3
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fanfare.v1 import campaign_pb2, delivery_pb2

# Where each kind counts. Kinds of class 15 (a click, a reply, an opt-out) are facts and no states.
BUCKETS = {
    delivery_pb2.KIND_AMBIGUOUS: "ambiguous", delivery_pb2.KIND_RETURNED: "pending",
    delivery_pb2.KIND_NOT_SENT: "notSent", delivery_pb2.KIND_SKIPPED: "skipped",
    delivery_pb2.KIND_SENT: "awaiting", delivery_pb2.KIND_BUFFERED: "awaiting",
    delivery_pb2.KIND_BOUNCED: "awaiting", delivery_pb2.KIND_UNCONFIRMED: "awaiting",
    delivery_pb2.KIND_UNDELIVERED: "undelivered",
    delivery_pb2.KIND_DELIVERED: "delivered", delivery_pb2.KIND_READ: "delivered",
}
# A campaign in one of these states will not settle: nothing was sent, or it is edited and confirmed again.
OVER = {campaign_pb2.STATE_CANCELLED, campaign_pb2.STATE_REJECTED, campaign_pb2.STATE_FAILED}

TABLES = """
CREATE TABLE IF NOT EXISTS campaigns (id TEXT PRIMARY KEY, version INT, state INT, settled INT, total INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS states (campaign TEXT, seq INT, precedence INT, PRIMARY KEY (campaign, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (topic TEXT, part INT, next INT, PRIMARY KEY (topic, part)) WITHOUT ROWID;
"""


def word(enum, number, prefix):
    """The name of a number of an enum; of one that a later version has added, the number."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else str(number)


def precedence(d):
    """class << 28 | try << 20 (class 0 only) | rank << 16 | code; 0 for a fact and for a kind that is not known here."""
    if d.kind not in BUCKETS:
        return 0
    cls, rank = d.kind >> 4, d.kind & 15
    tries = getattr(d, "try") & 255 if cls == 0 else 0  # a keyword in Python
    return cls << 28 | tries << 20 | rank << 16 | d.code & 0xFFFF


def on_delivery(db, value):
    d = delivery_pb2.Delivery.FromString(value)
    if p := precedence(d):
        db.execute("INSERT INTO states VALUES (?, ?, ?) ON CONFLICT (campaign, seq) DO UPDATE "
                   "SET precedence = max(precedence, excluded.precedence)", (d.campaign_id, d.seq, p))
    return d.campaign_id


def on_campaign(db, value):
    c = campaign_pb2.Campaign.FromString(value)
    db.execute("INSERT INTO campaigns VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version, "
               "state = excluded.state, settled = excluded.settled, total = excluded.total WHERE excluded.version > version",
               (c.id, c.version, c.state, c.settled, c.total))
    return c.id


HANDLERS = {b"fanfare.delivery.v1": on_delivery, b"fanfare.campaign.v1": on_campaign}


def account(db, campaign):
    """Everybody of a campaign, each in exactly one place."""
    row = db.execute("SELECT state, settled, total FROM campaigns WHERE id = ?", (campaign,)).fetchone()
    state, settled, total = row or (0, 0, 0)
    n, codes = collections.Counter(), collections.defaultdict(collections.Counter)
    for p, count in db.execute("SELECT precedence, count(*) FROM states WHERE campaign = ? GROUP BY precedence", (campaign,)):
        bucket, code = BUCKETS[(p >> 28) << 4 | p >> 16 & 15], p & 0xFFFF
        n[bucket] += count
        codes[bucket][word(delivery_pb2.Code, code, "CODE_")] += count
    total = max(total, n.total())  # the campaign's record goes a week after its end
    n["pending"] += total - n.total()
    n["sent"] = n["awaiting"] + n["undelivered"] + n["delivered"]
    parts = ("pending", "ambiguous", "notSent", "skipped", "sent", "awaiting", "undelivered", "delivered")
    return {"campaign": campaign, "state": word(campaign_pb2.State, state, "STATE_").lower(), "settled": bool(settled),
            "total": total, **{part: n[part] for part in parts}, "codes": codes}


def take(db, consumer, records):
    """Takes a batch in, whole, with the positions after it; returns the campaigns that it speaks of."""
    changed, after = set(), {}
    with db:
        for r in records:
            if (err := r.error()) is None:
                # A tombstone (no value) says that a campaign was over a week ago: what we know of it stays.
                handle = HANDLERS.get(dict(r.headers() or ()).get("ce_type"))  # skip what a later version may add
                if handle and r.value() is not None:
                    changed.add(handle(db, r.value()))
                after[r.topic(), r.partition()] = r.offset() + 1
            elif err.code() == KafkaError._PARTITION_EOF:  # the end; there may be markers of transactions before it
                after[r.topic(), r.partition()] = r.offset()
            elif err.code() == KafkaError._AUTO_OFFSET_RESET:
                sys.exit(f"{r.topic()}/{r.partition()}: what comes next was deleted before it was read, or the topic is a new one. "
                         "The state cannot be made whole any more: delete it, to rebuild what the topics still hold.")
            else:
                raise KafkaException(err)
        db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", [(*tp, offset) for tp, offset in after.items()])
    if after:
        consumer.commit(offsets=[TopicPartition(*tp, offset) for tp, offset in after.items()], asynchronous=True)
    return changed


def ends(consumer, topic):
    """Where each partition ends now."""
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    return {(topic, p): consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in parts}


def run(args, db, stopping):
    positions = "SELECT next FROM positions WHERE topic = ? AND part = ?"

    def goes_on(consumer, parts):
        for p in parts:
            p.offset = (db.execute(positions, (p.topic, p.partition)).fetchone() or (OFFSET_BEGINNING,))[0]
        consumer.assign(parts)

    login = {}
    if args.connection:  # beside an embedded installation
        with open(args.connection, encoding="utf-8") as file:
            c = json.load(file)
        args.brokers = c["brokers"]
        login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": c["sasl_mechanism"], "sasl.username": c["user"], "sasl.password": c["password"]}
    consumer = Consumer({
        "bootstrap.servers": args.brokers, "group.id": args.group, "isolation.level": "read_committed", "enable.auto.commit": False,
        "auto.offset.reset": "error", "enable.partition.eof": True, "session.timeout.ms": 10_000, "enable.metrics.push": False,
        **login, **dict(c.split("=", 1) for c in args.config),
    })
    deliveries = args.prefix + "deliveries"
    consumer.subscribe([args.prefix + "campaigns", deliveries], on_assign=goes_on)
    changed, shown, until = set(), time.monotonic(), None
    try:
        while not stopping:
            changed |= take(db, consumer, consumer.consume(1000, timeout=0.5))
            if args.until_settled:
                if until is None and db.execute("SELECT settled OR state IN (%s) FROM campaigns WHERE id = ?" % ",".join(map(str, OVER)),
                                                (args.until_settled,)).fetchone() == (1,):
                    until = ends(consumer, deliveries)  # all that was said of it before it settled stands below
                if until and all((db.execute(positions, tp).fetchone() or (0,))[0] >= end for tp, end in until.items()):
                    return args.until_settled
            elif changed and time.monotonic() - shown > 2:
                for campaign in sorted(changed):
                    show(account(db, campaign), args.json)
                changed, shown = set(), time.monotonic()
    finally:
        consumer.close()
    return None


def show(a, as_json):
    if as_json:
        print(json.dumps(a), flush=True)
        return
    print("{campaign} {state}: {total} = {pending} pending + {ambiguous} ambiguous + {notSent} not sent + {skipped} skipped + {sent} sent "
          "({awaiting} awaiting + {undelivered} undelivered + {delivered} delivered)".format(**a), flush=True)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--brokers", default="localhost:9092")
    flags.add_argument("--connection", metavar="FILE", help="DIR/consumer.json of an embedded installation, instead of --brokers and a login")
    flags.add_argument("--prefix", default="fanfare.", help="of the installation's topics")
    flags.add_argument("--group", default="account")
    flags.add_argument("--state", default="account.db", help="SQLite file of states and positions")
    flags.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="a setting of librdkafka, such as security.protocol=SASL_SSL")
    flags.add_argument("--until-settled", metavar="CAMPAIGN", help="print this campaign's account once it is settled, and stop")
    flags.add_argument("--json", action="store_true")
    args = flags.parse_args()
    stopping = []
    for s in (signal.SIGINT, signal.SIGTERM):  # the batch in hand is finished
        signal.signal(s, lambda *_: stopping.append(True))
    with contextlib.closing(sqlite3.connect(args.state, timeout=30)) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + TABLES)
        if done := run(args, db, stopping):
            show(account(db, done), args.json)


if __name__ == "__main__":
    main()
