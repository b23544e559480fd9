package observe

import (
	"fmt"
	"strings"
	"time"
)

// one is a series with the same value for an hour.
func one(series string, value any) []Series {
	return []Series{{series, fmt.Sprintf("%v+0x120", value)}}
}

// climbing is a counter that grows by the same amount every 30 s.
func climbing(series string, by any) []Series { return []Series{{series, fmt.Sprintf("0+%vx120", by)}} }

// once is a counter that grows by one shortly before the end of an example.
func once(series string) []Series { return []Series{{series, "0x110 1x10"}} }

// appearing is a counter that does not exist until it counts something.
func appearing(series string) []Series { return []Series{{series, "_x110 1x10"}} }

// processes are the series that every process of an installation has.
func processes(more ...Series) []Series {
	return append(one(`fanfare_view_age_seconds{job="f",instance="a"}`, 0.5), more...)
}

// rolesOf names, for each role, a metric that every process with the role has from its start.
var rolesOf = []struct{ role, metric string }{
	{"api", "fanfare_api_panics_total"},
	{"relay", "fanfare_relay_leading"},
	{"scheduler", "fanfare_scheduler_leading"},
	{"expander", `fanfare_stage_batch_records_count{stage="expander"}`},
	{"sender", "fanfare_ratelimit_calls_total"},
	{"tracker", "fanfare_tracker_receipt_delay_seconds_count"},
	{"inbound", `fanfare_stage_batch_records_count{stage="inbound"}`},
	{"analytics", "fanfare_analytics_events_total"},
	{"webhook", "fanfare_webhook_endpoints"},
}

// orNone yields 0 for an installation without such a series.
func orNone(expr string) string { return expr + " or 0 * max by (job) (fanfare_view_age_seconds)" }

func roleMissing() string {
	var parts []string
	for _, r := range rolesOf {
		parts = append(parts, fmt.Sprintf(`label_replace(%s, "role", %q, "", "")`, orNone("count by (job) ("+r.metric+")"), r.role))
	}
	return "(" + strings.Join(parts, "\n  or ") + ") < 1"
}

func increase(metric, window string) string { return fmt.Sprintf("increase(%s[%s])", metric, window) }

// grew returns by how much a counter rose, or its value if it appeared within the window: a counter with labels does
// not exist before it counts something.
func grew(metric, window string) string {
	return fmt.Sprintf("(increase(%s[%s]) > 0 or (%s unless %s offset %s))", metric, window, metric, metric, window)
}

func sumBy(labels, expr string) string { return fmt.Sprintf("sum by (%s) (%s)", labels, expr) }

func maxBy(labels, expr string) string { return fmt.Sprintf("max by (%s) (%s)", labels, expr) }

// Alerts returns all alerts: first those about a standstill, then those about promises, slowness and refused work.
func Alerts() []Alert {
	var all []Alert
	for _, group := range [][]Alert{standstill(), promises(), slowness(), refusals()} {
		all = append(all, group...)
	}
	return all
}

// standstill returns the alerts about messages that are not sent.
func standstill() []Alert {
	return []Alert{
		{
			Name: "FanfareDown", Expr: "absent(fanfare_view_age_seconds)", For: 2 * time.Minute, Severity: critical,
			Summary: "No process of Fanfare is scraped",
			Means:   "All processes are down, or Prometheus does not find them. If they are down, confirms and sends get no answer; nothing is lost.",
			Do:      "Check the processes first, then the scrape configuration. `fanfare doctor` with the flags of a process names the services it cannot reach.",
			Fires:   one(`up{job="other"}`, 1), Quiet: processes(),
		},
		{
			Name: "FanfareRoleMissing", Expr: roleMissing(), For: 2 * time.Minute, Severity: critical,
			Summary: "No process runs the role {{ $labels.role }}",
			Means:   "The work of the role is not done. Without relay, confirms do not reach the pipeline. Without expander, no campaign message is made. Without sender, nothing is sent. Without tracker, receipts wait (they are kept for 7 days). Without inbound, opt-outs by link wait and do not take effect. Without analytics, statistics do not change. Without webhook, customers' endpoints are told of nothing (it is made up for).",
			Do:      "Start a process with `--roles` that names the role. It then works through what waits in the topics.",
			Fires:   processes(),
			Quiet: processes(
				Series{`fanfare_api_panics_total{job="f"}`, "0x120"}, Series{`fanfare_relay_leading{job="f"}`, "1x120"},
				Series{`fanfare_scheduler_leading{job="f"}`, "0x120"}, Series{`fanfare_stage_batch_records_count{job="f",stage="expander"}`, "0x120"},
				Series{`fanfare_ratelimit_calls_total{job="f"}`, "0x120"}, Series{`fanfare_tracker_receipt_delay_seconds_count{job="f"}`, "0x120"},
				Series{`fanfare_stage_batch_records_count{job="f",stage="inbound"}`, "0x120"},
				Series{`fanfare_analytics_events_total{job="f"}`, "0x120"}, Series{`fanfare_webhook_endpoints{job="f"}`, "0x120"},
			),
		},
		{
			Name: "FanfareNoSchedulerLeads", Expr: "max by (job) (fanfare_scheduler_leading) < 1", For: time.Minute, Severity: critical,
			Summary: "No scheduler leads",
			Means:   "No message is dealt, and no campaign starts or completes. Messages that were dealt are still sent. A takeover takes a session time-out (10 s) and the time to read the missed events.",
			Do:      "Read the log of the schedulers: a leader that fails gives up its leadership and says why (FanfareSchedulerRestarts). Usual causes: Kafka is away, or `cursors` cannot be read.",
			Fires:   one(`fanfare_scheduler_leading{job="f"}`, 0), Quiet: append(one(`fanfare_scheduler_leading{job="f",instance="a"}`, 0), one(`fanfare_scheduler_leading{job="f",instance="b"}`, 1)...),
		},
		{
			Name: "FanfareNoRelayLeads", Expr: "max by (job) (fanfare_relay_leading) < 1", For: time.Minute, Severity: critical,
			Summary: "No relay leads",
			Means:   "Confirms, pauses, aborts, opt-outs and new limits are stored but do not reach the other processes. An abort that was answered has no effect until a relay leads.",
			Do:      "The leader holds a lock in the store. Check that the store answers, and that no session of a dead process holds the lock (Postgres: `pg_locks`, type advisory).",
			Fires:   one(`fanfare_relay_leading{job="f"}`, 0), Quiet: one(`fanfare_relay_leading{job="f"}`, 1),
		},
		{
			Name: "FanfareControlViewStale", Expr: maxBy("job, instance", "fanfare_view_age_seconds") + " > 5", For: 30 * time.Second, Severity: critical,
			Summary: "{{ $labels.instance }} has not read campaigns and control for {{ $value | humanizeDuration }}",
			Means:   "The process does not know whether campaigns were paused, so it sends and deals nothing.",
			Do:      "Check that the process reaches Kafka and that the topics `campaigns` and `control` have leaders. The process then continues by itself.",
			Fires:   one(`fanfare_view_age_seconds{job="f",instance="a"}`, 30), Quiet: processes(),
		},
		{
			Name: "FanfareOptOutsStale", Expr: maxBy("job, instance", "fanfare_view_suppressions_age_seconds") + " > 1.5", For: 30 * time.Second, Severity: critical,
			Summary: "{{ $labels.instance }} has not read the opt-outs for {{ $value | humanizeDuration }}",
			Means:   "The process sends nothing, because it could send to a person who has opted out.",
			Do:      "As for FanfareControlViewStale, with the topic `suppressions`. If only one process is affected, check its CPU and its network.",
			Fires:   one(`fanfare_view_suppressions_age_seconds{job="f",instance="a"}`, 4), Quiet: one(`fanfare_view_suppressions_age_seconds{job="f",instance="a"}`, 0.6),
		},
		{
			Name: "FanfareRedisAway", Expr: maxBy("job", "fanfare_ratelimit_redis_away") + " == 1", For: 30 * time.Second, Severity: critical,
			Summary: "Senders cannot take tokens: Redis is away",
			Means:   "All routes pause. Nothing is returned and nothing is lost. Receipts of carriers that do not echo our id wait, too.",
			Do:      "A sender logs `redis is not ready` once, with the reason; if an operator must fix it, such as a wrong password, the level is error and the line says what to fix. Start Redis. It may start empty: buckets start full, and the trackers rebuild the index of provider ids from the topics.",
			Fires:   one(`fanfare_ratelimit_redis_away{job="f"}`, 1), Quiet: one(`fanfare_ratelimit_redis_away{job="f"}`, 0),
		},
		{
			Name: "FanfareDealsWithheld", Expr: maxBy("job, cause", "fanfare_scheduler_withheld") + " == 1", For: time.Minute, Severity: critical,
			Summary: "The scheduler deals nothing, because of the {{ $labels.cause }}",
			Means:   "`view`: the control view of the scheduler is stale. `hook`: the disk of an embedded broker has less than 512 MB free.",
			Do:      "For `view`, see FanfareControlViewStale. For `hook`, free space under `--data`. The scheduler then continues by itself.",
			Fires:   one(`fanfare_scheduler_withheld{job="f",cause="view"}`, 1), Quiet: one(`fanfare_scheduler_withheld{job="f",cause="view"}`, 0),
		},
		{
			Name: "FanfareNothingDealt", Expr: maxBy("job", "fanfare_scheduler_stalled_campaigns") + " > 0", For: time.Minute, Severity: critical,
			Summary: "{{ $value }} campaign(s) make no progress although work waits",
			Means:   "For five minutes nothing was dealt of the campaign and no outcome arrived, although recipients wait or are in flight, its calling hours are open, and its route, tenant and limits have room. The campaign does not continue by itself.",
			Do:      "The log line `campaign makes no progress` names it, with how many are undealt and in flight. In flight and never answered: are expander and sender running (FanfareRoleMissing, FanfareStageStuck, FanfareSendingStuck), or was the store or Kafka put back from a copy? Then follow `fanfare restore` in [Backup and restore](#backup-and-restore). Undealt with nothing in flight: the scheduler's log says whether the store refuses the audience.",
			Fires:   one(`fanfare_scheduler_stalled_campaigns{job="f"}`, 1), Quiet: one(`fanfare_scheduler_stalled_campaigns{job="f"}`, 0),
		},
		{
			Name: "FanfareNoDomains", Expr: maxBy("job", "fanfare_api_campaigns_without_domains") + " > 0", Severity: warning, For: time.Minute,
			Summary: "{{ $value }} campaigns wait for a domain of links",
			Means:   "The campaigns are suspended with the reason `no_domains`: no domain for their links, or for their opt-out link, that they may use is active and healthy and has room in its limits.",
			Do:      "`fanfare campaign list --status suspended` names them, and `fanfare campaign-domain list CAMPAIGN` says what is left of which domain, and which is unhealthy and why. Add a domain (`fanfare campaign-domain add CAMPAIGN --host go2.example.com`), raise the limit of one (`fanfare domain update`), or mend what its check found: the campaign is resumed by itself. A daily limit begins again at 00:00 UTC.",
			Fires:   one(`fanfare_api_campaigns_without_domains{job="f"}`, 2), Quiet: one(`fanfare_api_campaigns_without_domains{job="f"}`, 0),
		},
		{
			Name: "FanfareBrokenRecord", Expr: maxBy("job", "fanfare_scheduler_broken_campaigns") + " > 0", Severity: critical,
			Summary: "{{ $value }} campaign(s) are set aside because one of their records cannot be read",
			Means:   "A record of the campaign in `cursors` or `chunks` cannot be read, so it is not known who was dealt. The campaign is suspended with the reason `broken_record`; nothing of it is dealt, ended or settled. All other campaigns go on.",
			Do:      "The log line `campaign set aside` names the campaign, and the record is in `cursors.dlq` or `chunks.dlq`. Find out which program wrote it, such as another version or another product that uses the same topics. Then follow `fanfare restore` in [Backup and restore](#backup-and-restore): it reads what was dealt from the log again. Resume the campaign afterwards.",
			Fires:   one(`fanfare_scheduler_broken_campaigns{job="f"}`, 1), Quiet: one(`fanfare_scheduler_broken_campaigns{job="f"}`, 0),
		},
		{
			Name: "FanfarePartitionSuspended", Expr: maxBy("job, topic", "fanfare_window_suspended_partitions") + " > 0", For: 0, Severity: critical,
			Summary: "{{ $value }} partition(s) of {{ $labels.topic }} are suspended",
			Means:   "The committed offset of a sender is missing, outside the log, or was not written by Fanfare. Starting anywhere else could send messages again, so the sender sends nothing from these partitions.",
			Do:      "The log line `partition suspended` names the reason and the command to run. After a loss of Kafka follow [Backup and restore](#backup-and-restore) instead. Then restart the senders.",
			Fires:   one(`fanfare_window_suspended_partitions{job="f",topic="t"}`, 1), Quiet: one(`fanfare_window_suspended_partitions{job="f",topic="t"}`, 0),
		},
		{
			Name: "FanfareSendingStuck", Expr: maxBy("job, topic", "fanfare_window_head_age_seconds") + " > 120", For: 2 * time.Minute, Severity: critical,
			Summary: "The oldest message of {{ $labels.topic }} without an outcome is {{ $value | humanizeDuration }} old",
			Means:   "The scheduler deals about one second of work at a time, so messages are normally sent within seconds. These are not.",
			Do:      "On the dashboard `Fanfare: sending` check what they wait for: tokens (a limit was lowered, Redis is away), the carrier (its answers, the breaker), or the window (commits are refused or slow).",
			Fires:   one(`fanfare_window_head_age_seconds{job="f",topic="t"}`, 300), Quiet: one(`fanfare_window_head_age_seconds{job="f",topic="t"}`, 4),
		},
		{
			Name: "FanfareCarrierAway", Expr: maxBy("job, route", "fanfare_sender_breaker_open") + " == 1", For: 2 * time.Minute, Severity: critical,
			Summary: "The carrier of route {{ $labels.route }} does not answer",
			Means:   "Nothing is handed over on this route, and the scheduler deals nothing to it. The sender tries one batch from time to time.",
			Do:      "Ask the carrier, and check the network in between. Campaigns continue by themselves. A campaign that must not wait can be aborted.",
			Fires:   one(`fanfare_sender_breaker_open{job="f",route="r"}`, 1), Quiet: one(`fanfare_sender_breaker_open{job="f",route="r"}`, 0),
		},
		{
			Name: "FanfareAccountRefused", Expr: maxBy("job, route", "fanfare_sender_route_account_refused") + " == 1", For: time.Minute, Severity: critical,
			Summary: "The carrier of route {{ $labels.route }} refuses the account",
			Means:   "A wrong password, an expired token, or an account that was closed. Nothing can be handed over, and the campaigns of the route are suspended with the reason `provider_auth`.",
			Do:      "Give the route new credentials (`fanfare route`, or the console). The campaigns are resumed by themselves, unless `care.autoResume` of the route is off.",
			Fires:   one(`fanfare_sender_route_account_refused{job="f",route="r"}`, 1), Quiet: one(`fanfare_sender_route_account_refused{job="f",route="r"}`, 0),
		},
	}
}

// promises returns the alerts about dangers to a promise of the product, or about a service that has broken its own
// promise.
func promises() []Alert {
	return []Alert{
		{
			Name: "FanfareLostCommits", Expr: sumBy("job, topic", increase("fanfare_window_lost_commits_total", "1h")) + " > 0", Severity: critical,
			Summary: "Kafka has lost commits of {{ $labels.topic }}",
			Means:   "Outcomes exist for messages above the committed offset, so the broker has lost commits that it had acknowledged. The sender called one window of messages ambiguous instead of sending them again.",
			Do:      "Find out what happened to `__consumer_offsets`: a broker started from an old disk, replication 1, unclean leader election, or `min.insync.replicas` 1. Do not start brokers from old disks.",
			Fires:   once(`fanfare_window_lost_commits_total{job="f",topic="t"}`), Quiet: one(`fanfare_window_lost_commits_total{job="f",topic="t"}`, 1),
		},
		{
			Name: "FanfareUncertain", Expr: sumBy("job, topic", increase("fanfare_window_uncertain_total", "15m")) + " > 0", Severity: warning,
			Summary: "{{ $value | humanize }} messages of {{ $labels.topic }} are ambiguous after a crash",
			Means:   "A sender ended without handing over its window. About half of these messages were sent. Where the carrier ignores an id that it has had, or can be asked by our id, the next sender finds out about each within 30 s: see the panel Doubts ended. Otherwise only receipts or a person can tell.",
			Do:      "Find out why the sender ended: kill -9, out of memory, a lost machine, or less than 15 s for a stop. Receipts resolve more of the messages; about the others a person can decide: `fanfare campaign ambiguous`.",
			Fires:   once(`fanfare_window_uncertain_total{job="f",topic="t"}`), Quiet: one(`fanfare_window_uncertain_total{job="f",topic="t"}`, 70),
		},
		{
			Name: "FanfareAmbiguous", Severity: warning, For: 5 * time.Minute,
			Expr: sumBy("job, route", `rate(fanfare_sender_outcomes_total{kind="ambiguous"}[10m])`) + " / " + sumBy("job, route", "rate(fanfare_sender_outcomes_total[10m])") + " > 0.01",

			Summary: "{{ $value | humanizePercentage }} of the messages of route {{ $labels.route }} are ambiguous",
			Means:   "The carrier accepts messages but does not answer in time. Each of these messages is ambiguous until a receipt comes, or until the sender has found out, where the carrier makes that possible.",
			Do:      "Check the carrier's answer times. If the carrier is only slow, raise the 99th percentile of the route's answer time. If it breaks connections, ask the carrier.",
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
			Means:   "A sender stops submitting when its last commit is 8 s old, because another sender may own its partitions by then. The guard works as designed, but it should not be needed.",
			Do:      "The machine was frozen or short of CPU, or Kafka did not answer commits. Check `Commit time` on the dashboard, and the machine.",
			Fires:   climbing(`fanfare_window_guard_trips_total{job="f",topic="t"}`, 1), Quiet: one(`fanfare_window_guard_trips_total{job="f",topic="t"}`, 3),
		},
		{
			Name: "FanfareRefusedCommits", Expr: sumBy("job, topic", increase("fanfare_window_refused_commits_total", "10m")) + " > 30", For: 5 * time.Minute, Severity: warning,
			Summary: "Kafka keeps refusing commits of {{ $labels.topic }}",
			Means:   "Every rebalance refuses a few commits. Many refused commits mean that members join and leave all the time; each time a partition stops for seconds.",
			Do:      "Look for senders that restart, machines that are too slow to send a heartbeat every second, and two installations with the same `--prefix`.",
			Fires:   climbing(`fanfare_window_refused_commits_total{job="f",topic="t"}`, 3), Quiet: once(`fanfare_window_refused_commits_total{job="f",topic="t"}`),
		},
		{
			Name: "FanfareTornTransactions", Expr: sumBy("job", increase("fanfare_scheduler_redealt_total", "1h")+" + "+increase("fanfare_scheduler_adopted_chunks_total", "1h")) + " > 0", Severity: warning,
			Summary: "{{ $value | humanize }} deals did not match their cursors: a transaction was torn",
			Means:   "The broker kept only a part of a transaction. The scheduler repeated the deal, or took the chunk as dealt. Senders drop duplicates, so no recipient gets a message twice.",
			Do:      "The embedded broker does this after kill -9. A real broker must not: look for topics that were deleted, truncated or restored.",
			Fires:   append(once(`fanfare_scheduler_redealt_total{job="f",instance="a"}`), one(`fanfare_scheduler_adopted_chunks_total{job="f",instance="a"}`, 0)...),
			Quiet:   append(one(`fanfare_scheduler_redealt_total{job="f",instance="a"}`, 2), one(`fanfare_scheduler_adopted_chunks_total{job="f",instance="a"}`, 0)...),
		},
		{
			Name: "FanfareUnknownDeliveryEvents", Expr: maxBy("job", "fanfare_scheduler_stray_events") + " > 0", For: 5 * time.Minute, Severity: warning,
			Summary: "{{ $value }} delivery events belong to no known try",
			Means:   "The scheduler does not know the deals of these outcomes: its cursors or the store are older than the topics.",
			Do:      "Something was restored from a copy. Follow [Backup and restore](#backup-and-restore) before a campaign is confirmed.",
			Fires:   one(`fanfare_scheduler_stray_events{job="f"}`, 12), Quiet: one(`fanfare_scheduler_stray_events{job="f"}`, 0),
		},
		{
			Name: "FanfareStatisticsGap", Expr: sumBy("job", increase("fanfare_analytics_gaps_total", "1h")) + " > 0", Severity: critical,
			Summary: "Kafka deleted delivery events before they were stored",
			Means:   "The statistics will never have these events. Sending and dealing are not affected.",
			Do:      "Analytics was away for longer than `deliveries` keeps events (35 days), or the topic was truncated or recreated. Tell the people who use the figures which time is affected.",
			Fires:   once(`fanfare_analytics_gaps_total{job="f"}`), Quiet: one(`fanfare_analytics_gaps_total{job="f"}`, 1),
		},
		{
			Name: "FanfareStatisticsFarBehind", Expr: maxBy("job", "fanfare_analytics_lag_seconds") + " > 172800", Severity: critical,
			Summary: "The statistics are {{ $value | humanizeDuration }} behind",
			Means:   "`deliveries` keeps events for 35 days. Events that are not stored by then are missing from the statistics for ever.",
			Do:      "Bring ClickHouse back, or add analytics processes, up to the 6 partitions of `deliveries`.",
			Fires:   one(`fanfare_analytics_lag_seconds{job="f"}`, 200000), Quiet: one(`fanfare_analytics_lag_seconds{job="f"}`, 90000),
		},
		{
			Name: "FanfareForgedReceipts", Expr: sumBy("job", increase(`fanfare_tracker_receipts_total{result="forged"}`, "15m")) + " > 10", Severity: warning,
			Summary: "{{ $value | humanize }} receipts have ids that we did not sign",
			Means:   "A client sends forged receipts, or the id key was changed and the old key was removed too early.",
			Do:      "If `--id-key` was changed, give both keys, the new one first, separated by a comma, until all receipts of the old key have arrived. Otherwise find out which clients can reach the port for carriers.",
			Fires:   climbing(`fanfare_tracker_receipts_total{job="f",result="forged"}`, 5), Quiet: climbing(`fanfare_tracker_receipts_total{job="f",result="delivered"}`, 50),
		},
	}
}

// slowness returns the alerts about work that is late.
func slowness() []Alert {
	return []Alert{
		{
			Name: "FanfareSinglesSlow", Expr: maxBy("job, route", `fanfare_sender_oldest_seconds{lane="txn"}`) + " > 5", For: 2 * time.Minute, Severity: warning,
			Summary: "Single messages of route {{ $labels.route }} wait {{ $value | humanizeDuration }}",
			Means:   "One-time codes and other single messages are late.",
			Do:      "The route, tenant or sender has reached its limit, or the carrier is slow. Single messages already go first: raise the limit, or use another route.",
			Fires:   one(`fanfare_sender_oldest_seconds{job="f",route="r",lane="txn"}`, 20), Quiet: one(`fanfare_sender_oldest_seconds{job="f",route="r",lane="bulk"}`, 20),
		},
		{
			Name: "FanfareThrottled", Expr: sumBy("job", "rate(fanfare_ratelimit_throttled_total[10m])") + " > 0.05", For: 15 * time.Minute, Severity: warning,
			Summary: "A carrier keeps throttling us",
			Means:   "Each time the sender halves the pace of the route and then raises it slowly. The limit of the route is above what the carrier accepts.",
			Do:      "Lower the limit of the route to the rate agreed with the carrier. The outcomes with code THROTTLED show the route.",
			Fires:   climbing(`fanfare_ratelimit_throttled_total{job="f"}`, 3), Quiet: one(`fanfare_ratelimit_throttled_total{job="f"}`, 3),
		},
		{
			Name: "FanfareStageStuck", Expr: maxBy("job, stage, topic", "fanfare_stage_head_lag_seconds") + " > 120", For: 5 * time.Minute, Severity: warning,
			Summary: "The {{ $labels.stage }} has a record of {{ $labels.topic }} in hand that is {{ $value | humanizeDuration }} old",
			Means:   "Expander: campaigns do not advance. Tracker: receipts are not counted yet.",
			Do:      "`fanfare_expander_waits_total` and `fanfare_tracker_waits_total` say what they wait for: the store, Redis, or the control view. After a long pause the stage may only be working through its backlog.",
			Fires:   one(`fanfare_stage_head_lag_seconds{job="f",stage="expander",topic="t"}`, 400), Quiet: one(`fanfare_stage_head_lag_seconds{job="f",stage="expander",topic="t"}`, 2),
		},
		{
			Name: "FanfareRelaySlow", Expr: "histogram_quantile(0.99, " + sumBy("job, le", "rate(fanfare_relay_delay_seconds_bucket[5m])") + ") > 2", For: 5 * time.Minute, Severity: warning,
			Summary: "Changes of the control plane take {{ $value | humanizeDuration }} to be published",
			Means:   "A pause or an opt-out takes that long to reach the senders.",
			Do:      "Check the answer times of the store and of Kafka as the process of the relay sees them.",
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
			Means:   "Statistics name their age in `as_of`. Sending is not affected.",
			Do:      "ClickHouse is away or slow (`Time of the store`), or analytics is too slow: add a process, up to the 6 partitions of `deliveries`.",
			Fires:   one(`fanfare_analytics_lag_seconds{job="f"}`, 300), Quiet: one(`fanfare_analytics_lag_seconds{job="f"}`, 2),
		},
		{
			Name: "FanfareWebhooksSlow", Expr: "histogram_quantile(0.99, " + sumBy("job, le", "rate(fanfare_webhook_wait_seconds_bucket[5m])") + ") > 30", For: 10 * time.Minute, Severity: warning,
			Summary: "Events reach customers' endpoints {{ $value | humanizeDuration }} late",
			Means:   "Endpoints answer slowly, or the webhook processes are too few. An endpoint that does not answer at all is not counted: each event counts once, at its first answer. Nothing is lost.",
			Do:      "`Endpoint's answer` on the dashboard of receipts says whether the endpoints are slow; then ask their tenants to set a batchSize, or use `fanfare webhook health` to find an endpoint that sends Retry-After. Otherwise add a webhook process, and check the store's answer times.",
			Fires: []Series{
				{`fanfare_webhook_wait_seconds_bucket{job="f",le="10"}`, "0+1x120"}, {`fanfare_webhook_wait_seconds_bucket{job="f",le="300"}`, "0+100x120"}, {`fanfare_webhook_wait_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
			Quiet: []Series{
				{`fanfare_webhook_wait_seconds_bucket{job="f",le="10"}`, "0+100x120"}, {`fanfare_webhook_wait_seconds_bucket{job="f",le="300"}`, "0+100x120"}, {`fanfare_webhook_wait_seconds_bucket{job="f",le="+Inf"}`, "0+100x120"},
			},
		},
		{
			Name: "FanfareReceiptsSlow", Expr: "histogram_quantile(0.99, " + sumBy("job, le", "rate(fanfare_tracker_receipt_delay_seconds_bucket[5m])") + ") > 60", For: 10 * time.Minute, Severity: warning,
			Summary: "Receipts take {{ $value | humanizeDuration }} to be counted",
			Means:   "The trackers are too slow, or receipts wait for Redis or for the control view.",
			Do:      "Add a tracker, up to the 6 partitions of `receipts`, and check `fanfare_tracker_waits_total`.",
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
			Means:   "One request in a hundred takes that long. For an import of many contacts that is normal.",
			Do:      "Check the answer times of the store. Single sends wait for the acknowledgement of Kafka.",
			Fires: []Series{
				{`fanfare_api_request_seconds_bucket{job="f",operation="x",le="2.5"}`, "0+1x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="10"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="+Inf"}`, "0+100x120"},
			},
			Quiet: []Series{
				{`fanfare_api_request_seconds_bucket{job="f",operation="x",le="2.5"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="10"}`, "0+100x120"}, {`fanfare_api_request_seconds_bucket{job="f",operation="x",le="+Inf"}`, "0+100x120"},
			},
		},
	}
}

// refusals returns the alerts about work that is refused, fails and is retried, or ends in the dead letters.
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
			Means:   "The records are in the `.dlq` topics, with the cause in their headers. Their recipients have an outcome. A process that refuses a record of the control plane keeps the state before it.",
			Do:      "Read the headers of the newest records of the `.dlq` topics. Usually another program writes to our topics, or the versions of two processes are more than one apart.",
			Fires:   appearing(`fanfare_stage_dead_letters_total{job="f",stage="tracker",topic="t"}`), Quiet: one(`fanfare_stage_dead_letters_total{job="f",stage="tracker",topic="t"}`, 5),
		},
		{
			Name: "FanfareRetrying", Severity: warning, For: 10 * time.Minute,
			Expr: "label_replace(" + sumBy("job, stage", "rate(fanfare_stage_retries_total[5m])") + `, "what", "$1", "stage", "(.*)") > 0.02` +
				"\n  or label_replace(" + sumBy("job", "rate(fanfare_analytics_retries_total[5m])") + `, "what", "analytics", "", "") > 0.02` +
				"\n  or label_replace(" + sumBy("job", "rate(fanfare_relay_failures_total[5m])") + `, "what", "relay", "", "") > 0.02` +
				"\n  or label_replace(" + sumBy("job", "rate(fanfare_webhook_store_errors_total[5m])") + `, "what", "webhook", "", "") > 0.02`,
			Summary: "The {{ $labels.what }} keeps failing and retrying",
			Means:   "A service that it uses fails. Nothing is lost, but work is late.",
			Do:      "Its log names the error. `fanfare doctor` with its flags examines each service.",
			Fires:   climbing(`fanfare_stage_retries_total{job="f",stage="expander"}`, 2), Quiet: once(`fanfare_stage_retries_total{job="f",stage="expander"}`),
		},
		{
			Name: "FanfareSchedulerRestarts", Expr: sumBy("job", increase("fanfare_scheduler_restarts_total", "15m")) + " > 3", Severity: warning,
			Summary: "The leading scheduler restarted {{ $value | humanize }} times",
			Means:   "Each time it drops its state and reads it again, and dealing pauses for seconds.",
			Do:      "Its log gives the reason: a transaction with an unknown result, a record that it cannot read, or a failure of Kafka.",
			Fires:   climbing(`fanfare_scheduler_restarts_total{job="f"}`, 1), Quiet: once(`fanfare_scheduler_restarts_total{job="f"}`),
		},
		{
			Name: "FanfareStateChangesFail", Expr: sumBy("job", `rate(fanfare_scheduler_moves_total{result="failed"}[5m])`) + " > 0", For: 5 * time.Minute, Severity: warning,
			Summary: "Campaigns cannot change their state in the store",
			Means:   "Campaigns do not start, complete or settle, and their money stays reserved. Messages that were dealt are sent.",
			Do:      "The store is away or refuses the change. The log of the scheduler says which.",
			Fires:   climbing(`fanfare_scheduler_moves_total{job="f",result="failed"}`, 1), Quiet: climbing(`fanfare_scheduler_moves_total{job="f",result="made"}`, 1),
		},
		{
			Name: "FanfareReceiptsDropped", Expr: sumBy("job", increase("fanfare_sender_provider_ids_dropped_total", "15m")) + " > 0", Severity: warning,
			Summary: "{{ $value | humanize }} provider ids could not be stored",
			Means:   "Redis was away for too long. Receipts of carriers that do not echo our id find their messages only after the trackers have rebuilt the index of provider ids from the topics.",
			Do:      "See FanfareRedisAway. The panel `Index rebuilt` shows when that is done.",
			Fires:   once(`fanfare_sender_provider_ids_dropped_total{job="f",route="r",lane="bulk"}`), Quiet: one(`fanfare_sender_provider_ids_dropped_total{job="f",route="r",lane="bulk"}`, 4),
		},
		{
			Name: "FanfareProviderIdIndexNotRebuilt", Expr: sumBy("job", grew(`fanfare_tracker_rendezvous_rebuilds_total{result="failed"}`, "15m")) + " > 0", Severity: warning,
			Summary: "The index of provider ids could not be rebuilt",
			Means:   "Receipts of carriers that do not echo our id wait.",
			Do:      "The tracker retries. Check Redis and the topic `deliveries`; the log of the tracker names the error.",
			Fires:   appearing(`fanfare_tracker_rendezvous_rebuilds_total{job="f",result="failed"}`), Quiet: appearing(`fanfare_tracker_rendezvous_rebuilds_total{job="f",result="done"}`),
		},
		{
			Name: "FanfareApiErrors", Severity: critical, For: 5 * time.Minute,
			Expr:    sumBy("job", `rate(fanfare_api_requests_total{status=~"5.."}[5m])`) + " / " + sumBy("job", "rate(fanfare_api_requests_total[5m])") + " > 0.02",
			Summary: "{{ $value | humanizePercentage }} of the requests fail",
			Means:   "503: the store or Kafka is away, and the answer says when to retry. 500: a bug.",
			Do:      "`/readyz` of the API names what is missing. For 500, find the request id of the answer in the log.",
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
			Means:   "This is a bug. The request was answered with 500, and the process continues.",
			Do:      "The log has the stack. Report it.",
			Fires:   once(`fanfare_api_panics_total{job="f"}`), Quiet: one(`fanfare_api_panics_total{job="f"}`, 1),
		},
	}
}
