package observe

import (
	"fmt"
	"strings"
	"time"
)

// one is a series that stands at a value for an hour.
func one(series string, value any) []Series {
	return []Series{{series, fmt.Sprintf("%v+0x120", value)}}
}

// climbing is a counter that grows by so much every 30 s, as long as an example runs.
func climbing(series string, by any) []Series { return []Series{{series, fmt.Sprintf("0+%vx120", by)}} }

// once is a counter that goes up by one shortly before the end of an example.
func once(series string) []Series { return []Series{{series, "0x110 1x10"}} }

// appearing is a counter that is not there before it counts something.
func appearing(series string) []Series { return []Series{{series, "_x110 1x10"}} }

// processes of an installation: every one has a control view.
func processes(more ...Series) []Series {
	return append(one(`fanfare_view_age_seconds{job="f",instance="a"}`, 0.5), more...)
}

// rolesOf are metrics that a process has from its start when it runs a role.
var rolesOf = []struct{ role, metric string }{
	{"api", "fanfare_api_panics_total"},
	{"relay", "fanfare_relay_leading"},
	{"scheduler", "fanfare_scheduler_leading"},
	{"expander", `fanfare_stage_batch_records_count{stage="expander"}`},
	{"sender", "fanfare_ratelimit_calls_total"},
	{"tracker", "fanfare_tracker_receipt_delay_seconds_count"},
	{"analytics", "fanfare_analytics_events_total"},
}

// orNone counts an installation that has no such series as 0.
func orNone(expr string) string { return expr + " or 0 * max by (job) (fanfare_view_age_seconds)" }

func roleMissing() string {
	var parts []string
	for _, r := range rolesOf {
		parts = append(parts, fmt.Sprintf(`label_replace(%s, "role", %q, "", "")`, orNone("count by (job) ("+r.metric+")"), r.role))
	}
	return "(" + strings.Join(parts, "\n  or ") + ") < 1"
}

func increase(metric, window string) string { return fmt.Sprintf("increase(%s[%s])", metric, window) }

// grew is how much a counter rose, or where it stands when it appeared within the window: a counter with labels is not there
// before the first thing it counts.
func grew(metric, window string) string {
	return fmt.Sprintf("(increase(%s[%s]) > 0 or (%s unless %s offset %s))", metric, window, metric, metric, window)
}

func sumBy(labels, expr string) string { return fmt.Sprintf("sum by (%s) (%s)", labels, expr) }

func maxBy(labels, expr string) string { return fmt.Sprintf("max by (%s) (%s)", labels, expr) }

// Alerts are all alerts: first what stops sending, then what endangers a promise, then what grows slow.
func Alerts() []Alert {
	var all []Alert
	for _, group := range [][]Alert{standstill(), promises(), slowness(), refusals()} {
		all = append(all, group...)
	}
	return all
}

// standstill is what stops messages.
func standstill() []Alert {
	return []Alert{
		{
			Name: "FanfareGone", Expr: "absent(fanfare_view_age_seconds)", For: 2 * time.Minute, Severity: critical,
			Summary: "No process of Fanfare is scraped",
			Means:   "Either every process is down or Prometheus does not find them. Confirms and sends are not answered; nothing is lost.",
			Do:      "Look at the processes first, then at the scrape configuration. `fanfare doctor` with the flags of a process names what it cannot reach.",
			Fires:   one(`up{job="other"}`, 1), Quiet: processes(),
		},
		{
			Name: "FanfareRoleMissing", Expr: roleMissing(), For: 2 * time.Minute, Severity: critical,
			Summary: "No process runs the role {{ $labels.role }}",
			Means:   "The role's part of the way stands still: without relay confirms do not arrive, without expander nothing is made, without sender nothing leaves, without tracker receipts wait (7 days are kept), without analytics statistics stand still.",
			Do:      "Start a process with `--roles` that names it. What waits in the topics is worked off.",
			Fires:   processes(),
			Quiet: processes(
				Series{`fanfare_api_panics_total{job="f"}`, "0x120"}, Series{`fanfare_relay_leading{job="f"}`, "1x120"},
				Series{`fanfare_scheduler_leading{job="f"}`, "0x120"}, Series{`fanfare_stage_batch_records_count{job="f",stage="expander"}`, "0x120"},
				Series{`fanfare_ratelimit_calls_total{job="f"}`, "0x120"}, Series{`fanfare_tracker_receipt_delay_seconds_count{job="f"}`, "0x120"},
				Series{`fanfare_analytics_events_total{job="f"}`, "0x120"},
			),
		},
		{
			Name: "FanfareNoDealer", Expr: "max by (job) (fanfare_scheduler_leading) < 1", For: time.Minute, Severity: critical,
			Summary: "No scheduler leads",
			Means:   "Nothing is dealt, started or completed. What was dealt is still sent. A take-over takes a session timeout (10 s) and the reading of what was missed.",
			Do:      "Read the log of the schedulers: one that leads and fails begins anew and says why (FanfareDealerRestarts). Kafka away, or `cursors` not readable, are the usual causes.",
			Fires:   one(`fanfare_scheduler_leading{job="f"}`, 0), Quiet: append(one(`fanfare_scheduler_leading{job="f",instance="a"}`, 0), one(`fanfare_scheduler_leading{job="f",instance="b"}`, 1)...),
		},
		{
			Name: "FanfareNoRelay", Expr: "max by (job) (fanfare_relay_leading) < 1", For: time.Minute, Severity: critical,
			Summary: "No relay leads",
			Means:   "Confirms, pauses, aborts, opt-outs and new limits are stored and do not reach the other processes. An abort that was answered has no effect until this is mended.",
			Do:      "The lead is a lock in the store: see whether the store answers, and whether a session of a dead process holds the lock (Postgres: `pg_locks`, type advisory).",
			Fires:   one(`fanfare_relay_leading{job="f"}`, 0), Quiet: one(`fanfare_relay_leading{job="f"}`, 1),
		},
		{
			Name: "FanfareControlViewStale", Expr: maxBy("job, instance", "fanfare_view_age_seconds") + " > 5", For: 30 * time.Second, Severity: critical,
			Summary: "{{ $labels.instance }} has not read campaigns and control for {{ $value | humanizeDuration }}",
			Means:   "The process does not know whether a campaign was paused, so it sends and deals nothing.",
			Do:      "Kafka cannot be reached from there, or the topics `campaigns` and `control` have no leader. It goes on by itself.",
			Fires:   one(`fanfare_view_age_seconds{job="f",instance="a"}`, 30), Quiet: processes(),
		},
		{
			Name: "FanfareOptOutsStale", Expr: maxBy("job, instance", "fanfare_view_suppressions_age_seconds") + " > 1.5", For: 30 * time.Second, Severity: critical,
			Summary: "{{ $labels.instance }} has not read the opt-outs for {{ $value | humanizeDuration }}",
			Means:   "The process sends nothing: it could reach somebody who has opted out.",
			Do:      "As FanfareControlViewStale, for the topic `suppressions`. When it is only one process, it is slow: look at its CPU and its place in the network.",
			Fires:   one(`fanfare_view_suppressions_age_seconds{job="f",instance="a"}`, 4), Quiet: one(`fanfare_view_suppressions_age_seconds{job="f",instance="a"}`, 0.6),
		},
		{
			Name: "FanfareRedisAway", Expr: maxBy("job", "fanfare_ratelimit_redis_away") + " == 1", For: 30 * time.Second, Severity: critical,
			Summary: "Senders cannot take tokens: Redis is away",
			Means:   "All routes pause; nothing is returned and nothing is lost. Receipts of carriers that do not echo our id wait too.",
			Do:      "Bring Redis back. It holds no truth: an empty one will do, buckets start full and the rendezvous is read again from the topics.",
			Fires:   one(`fanfare_ratelimit_redis_away{job="f"}`, 1), Quiet: one(`fanfare_ratelimit_redis_away{job="f"}`, 0),
		},
		{
			Name: "FanfareDealsWithheld", Expr: maxBy("job, cause", "fanfare_scheduler_withheld") + " == 1", For: time.Minute, Severity: critical,
			Summary: "Nothing is dealt, because of the {{ $labels.cause }}",
			Means:   "`view`: the scheduler's control view is stale. `hook`: an embedded broker's disk has under 512 MB free.",
			Do:      "View: see FanfareControlViewStale. Hook: make room under `--data`; dealing goes on by itself.",
			Fires:   one(`fanfare_scheduler_withheld{job="f",cause="view"}`, 1), Quiet: one(`fanfare_scheduler_withheld{job="f",cause="view"}`, 0),
		},
		{
			Name: "FanfareRouteHeld", Expr: maxBy("job, topic", "fanfare_window_suspended_partitions") + " > 0", For: 0, Severity: critical,
			Summary: "{{ $value }} partition(s) of {{ $labels.topic }} are suspended",
			Means:   "The committed offset of a sender is missing, outside of the log, or written by somebody else. Reading from anywhere else would send again, so nothing of these partitions is sent.",
			Do:      "The log line `a partition is suspended` names the reason and the command that mends it. After a loss of Kafka follow [Backup and restore](#backup-and-restore) instead. Start the senders again afterwards.",
			Fires:   one(`fanfare_window_suspended_partitions{job="f",topic="t"}`, 1), Quiet: one(`fanfare_window_suspended_partitions{job="f",topic="t"}`, 0),
		},
		{
			Name: "FanfareSendingStuck", Expr: maxBy("job, topic", "fanfare_window_head_age_seconds") + " > 120", For: 2 * time.Minute, Severity: critical,
			Summary: "The oldest message of {{ $labels.topic }} without an outcome is {{ $value | humanizeDuration }} old",
			Means:   "A second's worth is dealt at a time, so messages are seconds old when they leave. These are not leaving.",
			Do:      "On the page `Fanfare: sending` see what they wait for: tokens (a limit was lowered, Redis), the carrier (answers, breaker), or the window (commits refused or slow).",
			Fires:   one(`fanfare_window_head_age_seconds{job="f",topic="t"}`, 300), Quiet: one(`fanfare_window_head_age_seconds{job="f",topic="t"}`, 4),
		},
		{
			Name: "FanfareCarrierAway", Expr: maxBy("job, route", "fanfare_sender_breaker_open") + " == 1", For: 2 * time.Minute, Severity: critical,
			Summary: "The carrier of route {{ $labels.route }} does not answer",
			Means:   "Nothing is handed over on this route and nothing is dealt to it; one batch tries now and then.",
			Do:      "Ask the carrier, look at the network between. Campaigns go on by themselves; those that must not wait can be aborted.",
			Fires:   one(`fanfare_sender_breaker_open{job="f",route="r"}`, 1), Quiet: one(`fanfare_sender_breaker_open{job="f",route="r"}`, 0),
		},
	}
}

// promises is what endangers a promise of the product, or shows that something below has broken its own.
func promises() []Alert {
	return []Alert{
		{
			Name: "FanfareLostCommits", Expr: sumBy("job, topic", increase("fanfare_window_lost_commits_total", "1h")) + " > 0", Severity: critical,
			Summary: "Kafka has lost commits of {{ $labels.topic }}",
			Means:   "Outcomes are known of messages above what is committed: the broker forgot what it had acknowledged. The sender called a window's worth of messages ambiguous rather than send them again.",
			Do:      "Find out what happened to `__consumer_offsets`: a broker put back from an old disk, replication 1, unclean leader election, `min.insync.replicas` 1. Do not restart brokers from older disks.",
			Fires:   once(`fanfare_window_lost_commits_total{job="f",topic="t"}`), Quiet: one(`fanfare_window_lost_commits_total{job="f",topic="t"}`, 1),
		},
		{
			Name: "FanfareUncertain", Expr: sumBy("job, topic", increase("fanfare_window_uncertain_total", "15m")) + " > 0", Severity: warning,
			Summary: "{{ $value | humanize }} messages of {{ $labels.topic }} are ambiguous after a crash",
			Means:   "A sender ended without handing its window over. About half of these messages were sent; which ones, only receipts can tell. They are never sent again by themselves.",
			Do:      "Find out why it ended: kill -9, out of memory, a machine that went away, a stop that was given less than 15 s. Receipts resolve most; the rest shows as `ambiguous` in the campaign.",
			Fires:   once(`fanfare_window_uncertain_total{job="f",topic="t"}`), Quiet: one(`fanfare_window_uncertain_total{job="f",topic="t"}`, 70),
		},
		{
			Name: "FanfareAmbiguous", Severity: warning, For: 5 * time.Minute,
			Expr: sumBy("job, route", `rate(fanfare_sender_outcomes_total{kind="ambiguous"}[10m])`) + " / " + sumBy("job, route", "rate(fanfare_sender_outcomes_total[10m])") + " > 0.01",

			Summary: "{{ $value | humanizePercentage }} of the messages of route {{ $labels.route }} are ambiguous",
			Means:   "The carrier takes messages and does not answer in time. Each is held until a receipt tells what became of it.",
			Do:      "Look at the carrier's answer times. If it is merely slow, raise the route's 99th percentile answer time; if it breaks connections, ask the carrier.",
			Fires: []Series{
				{`fanfare_sender_outcomes_total{job="f",route="r",lane="bulk",kind="ambiguous",code="TIMEOUT"}`, "0+5x120"},
				{`fanfare_sender_outcomes_total{job="f",route="r",lane="bulk",kind="sent",code=""}`, "0+95x120"},
			},
			Quiet: []Series{
				{`fanfare_sender_outcomes_total{job="f",route="r",lane="bulk",kind="ambiguous",code="TIMEOUT"}`, "0+1x120"},
				{`fanfare_sender_outcomes_total{job="f",route="r",lane="bulk",kind="sent",code=""}`, "0+9999x120"},
			},
		},
		{
			Name: "FanfareGuardTrips", Expr: sumBy("job, topic", increase("fanfare_window_guard_trips_total", "10m")) + " > 0", For: time.Minute, Severity: warning,
			Summary: "Senders of {{ $labels.topic }} could not commit within the guard",
			Means:   "A sender submits nothing once its last commit is 8 s old: somebody else could own its messages by then. That is as it should be; that it happens is not.",
			Do:      "The machine was frozen or starved of CPU, or Kafka did not answer commits. Look at `How long a commit takes` and at the machine.",
			Fires:   climbing(`fanfare_window_guard_trips_total{job="f",topic="t"}`, 1), Quiet: one(`fanfare_window_guard_trips_total{job="f",topic="t"}`, 3),
		},
		{
			Name: "FanfareRefusedCommits", Expr: sumBy("job, topic", increase("fanfare_window_refused_commits_total", "10m")) + " > 30", For: 5 * time.Minute, Severity: warning,
			Summary: "Kafka goes on refusing commits of {{ $labels.topic }}",
			Means:   "A few belong to every rebalance. Many mean that members come and go: each time a partition stands still for seconds.",
			Do:      "Look for senders that restart, for machines that are too slow to heartbeat every second, and for two groups of processes with the same `--prefix`.",
			Fires:   climbing(`fanfare_window_refused_commits_total{job="f",topic="t"}`, 3), Quiet: once(`fanfare_window_refused_commits_total{job="f",topic="t"}`),
		},
		{
			Name: "FanfareBrokerToreTransactions", Expr: sumBy("job", increase("fanfare_scheduler_redealt_total", "1h")+" + "+increase("fanfare_scheduler_adopted_chunks_total", "1h")) + " > 0", Severity: warning,
			Summary: "Deals and cursors did not agree, {{ $value | humanize }} of them",
			Means:   "A transaction was half there. The scheduler made the deal again or took the chunk for dealt; senders drop twins. Nobody gets a message twice.",
			Do:      "With the embedded broker: a kill -9 does this. With a real one: it must not happen; look for topics that were deleted, truncated or restored.",
			Fires:   append(once(`fanfare_scheduler_redealt_total{job="f",instance="a"}`), one(`fanfare_scheduler_adopted_chunks_total{job="f",instance="a"}`, 0)...),
			Quiet:   append(one(`fanfare_scheduler_redealt_total{job="f",instance="a"}`, 2), one(`fanfare_scheduler_adopted_chunks_total{job="f",instance="a"}`, 0)...),
		},
		{
			Name: "FanfareStrays", Expr: maxBy("job", "fanfare_scheduler_stray_events") + " > 0", For: 5 * time.Minute, Severity: warning,
			Summary: "{{ $value }} delivery events belong to no try that was dealt",
			Means:   "Outcomes of deals that the scheduler does not know: its cursors, or the store, are older than the topics.",
			Do:      "Somebody put something back from a copy: follow [Backup and restore](#backup-and-restore) before anything is confirmed.",
			Fires:   one(`fanfare_scheduler_stray_events{job="f"}`, 12), Quiet: one(`fanfare_scheduler_stray_events{job="f"}`, 0),
		},
		{
			Name: "FanfareStatisticsGap", Expr: sumBy("job", increase("fanfare_analytics_gaps_total", "1h")) + " > 0", Severity: critical,
			Summary: "Delivery events were gone before they were stored",
			Means:   "The statistics miss events for good. What was sent and what is dealt is not affected.",
			Do:      "Analytics was away for longer than `deliveries` keeps (35 days), or the topic was truncated or made anew. Note the time for whoever reads the figures.",
			Fires:   once(`fanfare_analytics_gaps_total{job="f"}`), Quiet: one(`fanfare_analytics_gaps_total{job="f"}`, 1),
		},
		{
			Name: "FanfareStatisticsFarBehind", Expr: maxBy("job", "fanfare_analytics_lag_seconds") + " > 172800", Severity: critical,
			Summary: "The statistics are {{ $value | humanizeDuration }} behind",
			Means:   "`deliveries` is kept for 35 days; what is not stored by then is lost to the statistics.",
			Do:      "Bring ClickHouse back, or add analytics processes up to the 6 partitions of `deliveries`.",
			Fires:   one(`fanfare_analytics_lag_seconds{job="f"}`, 200000), Quiet: one(`fanfare_analytics_lag_seconds{job="f"}`, 90000),
		},
		{
			Name: "FanfareForgedReceipts", Expr: sumBy("job", increase(`fanfare_tracker_receipts_total{result="forged"}`, "15m")) + " > 10", Severity: warning,
			Summary: "{{ $value | humanize }} receipts bear ids that we did not sign",
			Means:   "Somebody makes receipts up, or the key of ids was changed without keeping the old one.",
			Do:      "Was `--id-key` changed? Give both, new first, separated by a comma, for as long as receipts of the old one come. Else look at who reaches the carrier's side.",
			Fires:   climbing(`fanfare_tracker_receipts_total{job="f",result="forged"}`, 5), Quiet: climbing(`fanfare_tracker_receipts_total{job="f",result="delivered"}`, 50),
		},
	}
}

// slowness is what grows slow.
func slowness() []Alert {
	return []Alert{
		{
			Name: "FanfareSinglesSlow", Expr: maxBy("job, route", `fanfare_sender_oldest_seconds{lane="txn"}`) + " > 5", For: 2 * time.Minute, Severity: warning,
			Summary: "Single messages of route {{ $labels.route }} wait {{ $value | humanizeDuration }}",
			Means:   "One-time codes and the like are late.",
			Do:      "The route, tenant or sender has reached its limit, or the carrier is slow. Single messages go first; raise the limit or use another route.",
			Fires:   one(`fanfare_sender_oldest_seconds{job="f",route="r",lane="txn"}`, 20), Quiet: one(`fanfare_sender_oldest_seconds{job="f",route="r",lane="bulk"}`, 20),
		},
		{
			Name: "FanfareThrottled", Expr: sumBy("job", "rate(fanfare_ratelimit_throttled_total[10m])") + " > 0.05", For: 15 * time.Minute, Severity: warning,
			Summary: "A carrier keeps asking to slow down",
			Means:   "The pace of the route is halved each time and climbs back: the limit that is set is above what the carrier takes.",
			Do:      "Lower the route's limit to what the carrier agreed to. The outcomes by code show which route: THROTTLED.",
			Fires:   climbing(`fanfare_ratelimit_throttled_total{job="f"}`, 3), Quiet: one(`fanfare_ratelimit_throttled_total{job="f"}`, 3),
		},
		{
			Name: "FanfareStageStuck", Expr: maxBy("job, stage, topic", "fanfare_stage_head_lag_seconds") + " > 120", For: 5 * time.Minute, Severity: warning,
			Summary: "The {{ $labels.stage }} has a record of {{ $labels.topic }} in hand that is {{ $value | humanizeDuration }} old",
			Means:   "Expander: campaigns stand still. Tracker: receipts are not counted yet.",
			Do:      "`fanfare_expander_waits_total` and `fanfare_tracker_waits_total` say what for: the store, Redis, the control view. After a long pause of the stage it only works off what waited.",
			Fires:   one(`fanfare_stage_head_lag_seconds{job="f",stage="expander",topic="t"}`, 400), Quiet: one(`fanfare_stage_head_lag_seconds{job="f",stage="expander",topic="t"}`, 2),
		},
		{
			Name: "FanfareRelaySlow", Expr: "histogram_quantile(0.99, " + sumBy("job, le", "rate(fanfare_relay_delay_seconds_bucket[5m])") + ") > 2", For: 5 * time.Minute, Severity: warning,
			Summary: "Changes of the control plane take {{ $value | humanizeDuration }} to be published",
			Means:   "A pause or an opt-out takes as long to reach the senders.",
			Do:      "Look at the store's and Kafka's answer times as the relay's process sees them.",
			Fires: []Series{
				{`fanfare_relay_delay_seconds_bucket{job="f",le="1"}`, "0+1x120"}, {`fanfare_relay_delay_seconds_bucket{job="f",le="5"}`, "0+100x120"}, {`fanfare_relay_delay_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
			Quiet: []Series{
				{`fanfare_relay_delay_seconds_bucket{job="f",le="1"}`, "0+100x120"}, {`fanfare_relay_delay_seconds_bucket{job="f",le="5"}`, "0+100x120"}, {`fanfare_relay_delay_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
		},
		{
			Name: "FanfareStatisticsBehind", Expr: maxBy("job", "fanfare_analytics_lag_seconds") + " > 60", For: 5 * time.Minute, Severity: warning,
			Summary: "The statistics are {{ $value | humanizeDuration }} behind",
			Means:   "Figures say `as_of`; sending is not affected.",
			Do:      "ClickHouse is away or slow (`The store's time`), or analytics cannot follow: add a process, up to the 6 partitions of `deliveries`.",
			Fires:   one(`fanfare_analytics_lag_seconds{job="f"}`, 300), Quiet: one(`fanfare_analytics_lag_seconds{job="f"}`, 2),
		},
		{
			Name: "FanfareReceiptsSlow", Expr: "histogram_quantile(0.99, " + sumBy("job, le", "rate(fanfare_tracker_receipt_delay_seconds_bucket[5m])") + ") > 60", For: 10 * time.Minute, Severity: warning,
			Summary: "Receipts take {{ $value | humanizeDuration }} to be counted",
			Means:   "Trackers do not keep up, or receipts wait for Redis or for the control view.",
			Do:      "Add a tracker, up to the 6 partitions of `receipts`; look at `fanfare_tracker_waits_total`.",
			Fires: []Series{
				{`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="10"}`, "0+1x120"}, {`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="600"}`, "0+100x120"}, {`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
			Quiet: []Series{
				{`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="10"}`, "0+100x120"}, {`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="600"}`, "0+100x120"}, {`fanfare_tracker_receipt_delay_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
		},
		{
			Name: "FanfareApiSlow", Expr: "histogram_quantile(0.99, " + sumBy("job, operation, le", "rate(fanfare_api_request_seconds_bucket[5m])") + ") > 5", For: 10 * time.Minute, Severity: warning,
			Summary: "{{ $labels.operation }} takes {{ $value | humanizeDuration }}",
			Means:   "One of a hundred requests takes this long. An import of many contacts does, and is no fault.",
			Do:      "Look at the store's answer times; single sends wait for Kafka's acknowledgement.",
			Fires: []Series{
				{`fanfare_api_request_seconds_bucket{job="f",operation="x",le="2.5"}`, "0+1x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="10"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="+Inf"}`, "0+100x120"},
			},
			Quiet: []Series{
				{`fanfare_api_request_seconds_bucket{job="f",operation="x",le="2.5"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="10"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="+Inf"}`, "0+100x120"},
			},
		},
	}
}

// refusals is what is refused, fails and is tried again, or ends among the dead letters.
func refusals() []Alert {
	dead := []string{
		sumBy("job", grew("fanfare_stage_dead_letters_total", "15m")), sumBy("job", increase("fanfare_scheduler_dead_letters_total", "15m")),
		sumBy("job", grew("fanfare_analytics_dead_letters_total", "15m")), sumBy("job", increase("fanfare_sender_poison_total", "15m")),
		sumBy("job", increase("fanfare_view_refused_records_total", "15m")),
	}
	return []Alert{
		{
			Name: "FanfareDeadLetters", Expr: "(" + strings.Join(dead, " > 0)\n  or (") + " > 0)", Severity: warning,
			Summary: "{{ $value | humanize }} records could not be handled",
			Means:   "They are in the `.dlq` topics with the cause in their headers; the recipients have an outcome. A record of the control plane that is refused leaves its process with the state before.",
			Do:      "Read the headers of the newest records of the `.dlq` topics. Usually somebody else writes to our topics, or versions differ by more than one.",
			Fires:   appearing(`fanfare_stage_dead_letters_total{job="f",stage="tracker",topic="t"}`), Quiet: one(`fanfare_stage_dead_letters_total{job="f",stage="tracker",topic="t"}`, 5),
		},
		{
			Name: "FanfareRetrying", Severity: warning, For: 10 * time.Minute,
			Expr: "label_replace(" + sumBy("job, stage", "rate(fanfare_stage_retries_total[5m])") + `, "what", "$1", "stage", "(.*)") > 0.02` +
				"\n  or label_replace(" + sumBy("job", "rate(fanfare_analytics_retries_total[5m])") + `, "what", "analytics", "", "") > 0.02` +
				"\n  or label_replace(" + sumBy("job", "rate(fanfare_relay_failures_total[5m])") + `, "what", "relay", "", "") > 0.02`,
			Summary: "The {{ $labels.what }} fails and tries again",
			Means:   "What it stands on fails. Nothing is lost; it is late.",
			Do:      "Its log names the error. `fanfare doctor` with its flags looks at each service.",
			Fires:   climbing(`fanfare_stage_retries_total{job="f",stage="expander"}`, 2), Quiet: once(`fanfare_stage_retries_total{job="f",stage="expander"}`),
		},
		{
			Name: "FanfareDealerRestarts", Expr: sumBy("job", increase("fanfare_scheduler_restarts_total", "15m")) + " > 3", Severity: warning,
			Summary: "The dealer began anew {{ $value | humanize }} times",
			Means:   "Each time it throws away what it knows and reads it again: dealing pauses for seconds.",
			Do:      "Its log names why the term ended: a transaction in doubt, a record that it cannot read, Kafka.",
			Fires:   climbing(`fanfare_scheduler_restarts_total{job="f"}`, 1), Quiet: once(`fanfare_scheduler_restarts_total{job="f"}`),
		},
		{
			Name: "FanfareMovesFail", Expr: sumBy("job", `rate(fanfare_scheduler_moves_total{result="failed"}[5m])`) + " > 0", For: 5 * time.Minute, Severity: warning,
			Summary: "Campaigns cannot be moved on in the store",
			Means:   "They do not start, complete or settle, and money stays reserved. What is dealt is sent.",
			Do:      "The store is away, or refuses: the scheduler's log says which.",
			Fires:   climbing(`fanfare_scheduler_moves_total{job="f",result="failed"}`, 1), Quiet: climbing(`fanfare_scheduler_moves_total{job="f",result="made"}`, 1),
		},
		{
			Name: "FanfareReceiptsDropped", Expr: sumBy("job", increase("fanfare_sender_provider_ids_dropped_total", "15m")) + " > 0", Severity: warning,
			Summary: "{{ $value | humanize }} provider ids could not be kept",
			Means:   "Redis was away for too long: receipts of carriers that do not echo our id find their message only after the rendezvous is filled again from the topics.",
			Do:      "See FanfareRedisAway. `Rendezvous filled again` shows when it was.",
			Fires:   once(`fanfare_sender_provider_ids_dropped_total{job="f",route="r",lane="bulk"}`), Quiet: one(`fanfare_sender_provider_ids_dropped_total{job="f",route="r",lane="bulk"}`, 4),
		},
		{
			Name: "FanfareRendezvousNotFilled", Expr: sumBy("job", grew(`fanfare_tracker_rendezvous_rebuilds_total{result="failed"}`, "15m")) + " > 0", Severity: warning,
			Summary: "The rendezvous of provider ids could not be filled again",
			Means:   "Receipts of carriers that do not echo our id wait.",
			Do:      "It is tried again. Look at Redis and at `deliveries` as the tracker's log names them.",
			Fires:   appearing(`fanfare_tracker_rendezvous_rebuilds_total{job="f",result="failed"}`), Quiet: appearing(`fanfare_tracker_rendezvous_rebuilds_total{job="f",result="done"}`),
		},
		{
			Name: "FanfareApiErrors", Severity: critical, For: 5 * time.Minute,
			Expr:    sumBy("job", `rate(fanfare_api_requests_total{status=~"5.."}[5m])`) + " / " + sumBy("job", "rate(fanfare_api_requests_total[5m])") + " > 0.02",
			Summary: "{{ $value | humanizePercentage }} of the requests fail",
			Means:   "503: the store or Kafka is away and clients are told when to come again. 500: a bug.",
			Do:      "`/readyz` of the API names what is missing. For 500 take the request id from the answer and find it in the log.",
			Fires: []Series{
				{`fanfare_api_requests_total{job="f",operation="x",status="503"}`, "0+1x120"}, {`fanfare_api_requests_total{job="f",operation="x",status="200"}`, "0+9x120"},
			},
			Quiet: []Series{
				{`fanfare_api_requests_total{job="f",operation="x",status="422"}`, "0+5x120"}, {`fanfare_api_requests_total{job="f",operation="x",status="200"}`, "0+9x120"},
			},
		},
		{
			Name: "FanfareApiPanics", Expr: sumBy("job", increase("fanfare_api_panics_total", "15m")) + " > 0", Severity: warning,
			Summary: "A request ended in a panic",
			Means:   "A bug. The request was answered with 500; the process lives on.",
			Do:      "The log has the stack. Report it.",
			Fires:   once(`fanfare_api_panics_total{job="f"}`), Quiet: one(`fanfare_api_panics_total{job="f"}`, 1),
		},
	}
}
