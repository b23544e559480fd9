package observe

// Dashboards returns all pages, first the one to look at first.
func Dashboards() []Dashboard {
	return []Dashboard{overview(), sending(), dealing(), outcomes(), control(), clients()}
}

func overview() Dashboard {
	return Dashboard{
		ID: "fanfare-overview", Title: "Fanfare: overview",
		About: "The path of a message, from left to right and top to bottom: accepted, dealt, handed over, answered, counted. Start here; the other dashboards have the details.",
		Rows: []Row{
			{"Messages a second", []Panel{
				{"Dealt", "Recipients dealt by the scheduler, by purpose.", perSecond, true, []Query{rate("fanfare_scheduler_dealt_recipients_total", "purpose")}},
				{"Handed over", "Messages handed over to carriers.", perSecond, true, []Query{rate("fanfare_sender_submitted_total", "route", "lane")}},
				{"Outcomes", "Outcomes written by senders, by kind. An ambiguous message is held until a receipt comes.", perSecond, true, []Query{rate("fanfare_sender_outcomes_total", "kind")}},
				{"Receipts", "Receipts of carriers, by result.", perSecond, true, []Query{rate("fanfare_tracker_receipts_total", "result")}},
				{"Stored", "Delivery events added to the statistics.", perSecond, false, []Query{rate("fanfare_analytics_events_total").named("events")}},
				{"Single sends", "Destinations of single sends, by result.", perSecond, true, []Query{rate("fanfare_api_single_sends_total", "result")}},
			}},
			{"Backlog", []Panel{
				{"Backlog of routes", "Seconds that a route needs at its limit for the recipients that are not dealt yet.", seconds, false, []Query{worst("fanfare_scheduler_backlog_seconds", "route")}},
				{"In flight", "Recipients dealt and not answered: about one second of the tightest limit.", count, true, []Query{worst("fanfare_scheduler_in_flight", "route", "lane")}},
				{"Statistics behind", "How far the statistics are behind the topic. -1 until that is known.", seconds, false, []Query{worst("fanfare_analytics_lag_seconds").named("lag")}},
			}},
			{"Leaders and age", []Panel{
				{"Leaders", "One relay and one scheduler lead. 0 for longer than a session time-out (10 s) is an outage of that role.", count, false, []Query{
					total("fanfare_scheduler_leading").named("scheduler"), total("fanfare_relay_leading").named("relay"),
				}},
				{"Age of the control view", "Above 5 s (opt-outs: 1.5 s) the process sends nothing.", seconds, false, []Query{
					worst("fanfare_view_age_seconds").named("campaigns, control"), worst("fanfare_view_suppressions_age_seconds").named("suppressions"),
				}},
				{"Uncertain", "Records that an owner may have handed over before it crashed. They become ambiguous.", count, false, []Query{grown("fanfare_window_uncertain_total", "topic")}},
			}},
		},
	}
}

func sending() Dashboard {
	return Dashboard{
		ID: "fanfare-sending", Title: "Fanfare: sending",
		About: "One sender per route and lane: its intent window (it writes ahead what may be in flight), the tokens of its limits, and the carrier's answers.",
		Rows: []Row{
			{"Route and lane", []Panel{
				{"Waiting", "Released by the window and not handed over yet: no token, or the carrier is slow.", count, false, []Query{total("fanfare_sender_waiting", "route", "lane")}},
				{"Oldest waiting", "How long the oldest of the waiting messages has waited.", seconds, false, []Query{worst("fanfare_sender_oldest_seconds", "route", "lane")}},
				{"Seconds of backlog", "Seconds that the route needs at its limit for the messages that wait in senders.", seconds, false, []Query{worst("fanfare_sender_backlog_seconds", "route", "lane")}},
				{"At the carrier", "Handed over and not answered yet.", count, false, []Query{total("fanfare_sender_in_flight", "route", "lane")}},
				{"Carrier's answer", "Time from the hand-over to the answer.", seconds, false, []Query{
					quantile("0.50", "fanfare_sender_answer_seconds", "route", "lane"), quantile("0.99", "fanfare_sender_answer_seconds", "route", "lane"),
				}},
				{"Outcomes by code", "Codes of messages that were not sent, were returned or are ambiguous.", perSecond, true, []Query{rate(`fanfare_sender_outcomes_total{kind!="sent"}`, "kind", "code")}},
				{"No answer in time", "A hand-over without an answer in time becomes ambiguous; a late answer resolves it. Not written: the deadline of the hand-over had passed, or it was withdrawn.", count, false, []Query{
					grown("fanfare_sender_timeouts_total", "route", "lane").named("time-outs"), grown("fanfare_sender_late_answers_total", "route", "lane").named("late"),
					grown("fanfare_sender_not_written_total", "route", "lane").named("not written"),
				}},
				{"Held back", "Breaker open: the carrier does not answer. Suspended: a partition waits for an operator.", count, false, []Query{
					worst("fanfare_sender_breaker_open", "route").named("breaker"), total("fanfare_sender_suspended_partitions", "route", "lane").named("suspended"),
				}},
				{"Route", "Up: messages can be handed over. Account refused: the carrier refuses the password or the token. Throttled: share of the last answers in which the carrier asked to slow down.", count, false, []Query{
					worst("fanfare_sender_route_up", "route").named("up"), worst("fanfare_sender_route_account_refused", "route").named("account refused"),
					total("fanfare_sender_route_sessions", "route").named("sessions"), worst("fanfare_sender_route_throttled_ratio", "route").named("throttled"),
				}},
				{"Doubts ended", "Hand-overs in doubt that the sender resolved, by result: taken, refused, not taken, given up. Repeated: handed over again under the same id.", count, false, []Query{
					grown("fanfare_sender_doubts_ended_total", "route", "end"), grown("fanfare_sender_repeated_total", "route").named("repeated"),
				}},
				{"Put aside", "Messages whose partition was lost, records that cannot be read, messages whose id Fanfare did not sign, and single messages that must wait.", count, false, []Query{
					grown("fanfare_sender_forgotten_total", "route", "lane").named("forgotten"), grown("fanfare_sender_poison_total", "route", "lane").named("poison"),
					grown("fanfare_sender_held_total", "route", "lane").named("held"), grown("fanfare_sender_forged_total", "route", "lane").named("forged"),
				}},
			}},
			{"Limits", []Panel{
				{"Tokens leased", "Tokens leased per second, by lane: the rate that the limits allow.", perSecond, true, []Query{rate("fanfare_ratelimit_tokens_total", "lane")}},
				{"Short of tokens", "The level (route, tenant, sender, campaign) that had too few tokens.", perSecond, false, []Query{
					rate("fanfare_ratelimit_denied_total", "level").named("limiter"), rate("fanfare_sender_tokens_denied_total", "route", "lane", "level").named("sender"),
				}},
				{"Tokens expired", "Tokens that were leased but expired before the carrier had room.", count, false, []Query{grown("fanfare_sender_tokens_expired_total", "route", "lane")}},
				{"Calls to Redis", "About one per sender and lease of 20 to 50 ms, at any volume.", perSecond, false, []Query{rate("fanfare_ratelimit_calls_total").named("calls")}},
				{"Redis away", "While Redis is away, senders keep their messages and hand over nothing.", onOff, false, []Query{worst("fanfare_ratelimit_redis_away").named("away")}},
				{"Carrier throttles", "Each throttling halves the pace of the route for all senders; the pace then rises slowly.", count, false, []Query{grown("fanfare_ratelimit_throttled_total").named("throttled")}},
			}},
			{"Intent window", []Panel{
				{"In the window", "Released records without an acknowledged outcome. At most this many are uncertain after a crash.", count, false, []Query{
					total("fanfare_window_in_flight", "topic").named("in flight"), total("fanfare_window_in_doubt", "topic").named("in doubt"),
				}},
				{"Queued and not polled", "Records that are polled and wait for room, and records in the log behind them. The latter include control records and never reach 0.", count, false, []Query{
					total("fanfare_window_queued", "topic").named("queued"), total("fanfare_window_backlog", "topic").named("in the log"),
				}},
				{"Age of the head", "Age of the oldest record without an outcome. One in doubt has an outcome: ambiguous.", seconds, false, []Query{worst("fanfare_window_head_age_seconds", "topic")}},
				{"Commits", "Each commit settles finished records and declares new ones.", perSecond, false, []Query{rate("fanfare_window_commits_total", "topic")}},
				{"Commit time", "About 6 ms on a real broker. The window must cover it.", seconds, false, []Query{quantile("0.99", "fanfare_window_commit_seconds", "topic")}},
				{"Refused commits and resets", "Refused commits, and partitions reset to their committed offset. Every rebalance has a few.", count, false, []Query{
					grown("fanfare_window_refused_commits_total", "topic").named("refused"), grown("fanfare_window_resets_total", "topic").named("resets"),
				}},
				{"Uncertain", "Records that are uncertain after a crash, and records without an answer when a partition was handed over gracefully.", count, false, []Query{
					grown("fanfare_window_uncertain_total", "topic").named("uncertain"), grown("fanfare_window_handed_over_doubtful_total", "topic").named("handed over"),
				}},
				{"Duplicates dropped", "Submissions that the sender has seen before, for example after a broker has torn a transaction.", count, false, []Query{grown("fanfare_window_seen_drops_total", "topic")}},
				{"Guards", "Trips: no commit in time, so the sender submitted nothing. Lost commits: the broker lost commits that it had acknowledged.", count, false, []Query{
					grown("fanfare_window_guard_trips_total", "topic").named("trips"), grown("fanfare_window_lost_commits_total", "topic").named("lost commits"),
					worst("fanfare_window_suspended_partitions", "topic").named("suspended"),
				}},
			}},
		},
	}
}

func dealing() Dashboard {
	return Dashboard{
		ID: "fanfare-dealing", Title: "Fanfare: dealing and expanding",
		About: "The scheduler decides which recipients are tried, for the first time or again. The expander makes the messages, one transaction per batch of chunks.",
		Rows: []Row{
			{"Scheduler", []Panel{
				{"Chunks dealt", "By purpose: deal, again, cancel, single.", perSecond, true, []Query{rate("fanfare_scheduler_deals_total", "purpose")}},
				{"Events read", "Delivery events per second. The leading scheduler reads all of them.", perSecond, false, []Query{rate("fanfare_scheduler_events_total").named("events")}},
				{"Ended", "Recipients that the scheduler ended because nothing follows, by kind.", perSecond, true, []Query{rate("fanfare_scheduler_ends_total", "kind")}},
				{"To be dealt again", "Recipients that wait for another try.", count, false, []Query{worst("fanfare_scheduler_due", "route")}},
				{"Longest overdue", "How late the most overdue recipient is. Limits are full, or dealing is withheld.", seconds, false, []Query{worst("fanfare_scheduler_oldest_due_seconds", "route")}},
				{"No progress", "Campaigns without progress for five minutes although no limit or pause holds them, and campaigns set aside because a record cannot be read.", count, false, []Query{
					worst("fanfare_scheduler_stalled_campaigns").named("no progress"), worst("fanfare_scheduler_broken_campaigns").named("set aside"),
					grown("fanfare_scheduler_suspensions_total", "reason").named("suspended"),
				}},
				{"Routes away", "1 while a route cannot carry its recipients. Other routes carry those of the campaigns that have any.", onOff, false, []Query{worst("fanfare_scheduler_route_away", "route")}},
				{"Withheld", "1 while this cause keeps the scheduler from dealing.", onOff, false, []Query{worst("fanfare_scheduler_withheld", "cause")}},
				{"Transactions", "Duration of a transaction.", seconds, false, []Query{quantile("0.99", "fanfare_scheduler_commit_seconds"), mean("fanfare_scheduler_commit_seconds")}},
				{"Faults", "Restarts of the leader, aborted transactions, repeated deals, chunks that no cursor named, unreadable records.", count, false, []Query{
					grown("fanfare_scheduler_restarts_total").named("restarts"), grown("fanfare_scheduler_aborted_transactions_total").named("aborted"),
					grown("fanfare_scheduler_redealt_total").named("repeated deals"), grown("fanfare_scheduler_adopted_chunks_total").named("adopted"),
					grown("fanfare_scheduler_dead_letters_total").named("dead letters"),
				}},
				{"Strays", "Delivery events of unknown tries since the scheduler began to lead.", count, false, []Query{worst("fanfare_scheduler_stray_events").named("strays")}},
				{"Campaigns and held messages", "Campaigns that are not settled, and single sends that wait for their time.", count, false, []Query{
					worst("fanfare_scheduler_open_campaigns").named("campaigns"), worst("fanfare_scheduler_held_messages").named("held"),
				}},
				{"State changes", "State changes of campaigns that the scheduler asked the store for, by result.", count, true, []Query{grown("fanfare_scheduler_moves_total", "result")}},
				{"Takeover and sets", "Duration of the last takeover, and the bytes of recipient sets that the leader writes per second.", count, false, []Query{
					worst("fanfare_scheduler_takeover_seconds").named("seconds of the last takeover"), rate("fanfare_scheduler_sets_bytes_total").named("bytes/s of sets"),
				}},
			}},
			{"Expander", []Panel{
				{"Recipients", "Recipients by result: a message, or the sub-status of their outcome.", perSecond, true, []Query{rate("fanfare_expander_recipients_total", "result")}},
				{"Chunks", "Chunks by result.", perSecond, true, []Query{rate("fanfare_expander_chunks_total", "result")}},
				{"Waits", "Batches that waited for the view or for the store.", count, false, []Query{grown("fanfare_expander_waits_total", "for")}},
				{"Audience blobs", "Blobs by where they were read from.", perSecond, true, []Query{rate("fanfare_expander_blob_reads_total", "from")}},
			}},
			{"Stages", []Panel{
				{"Batches", "Mean records per batch.", count, false, []Query{mean("fanfare_stage_batch_records", "stage")}},
				{"Handling", "99th percentile of the time to handle a batch.", seconds, false, []Query{quantile("0.99", "fanfare_stage_handle_seconds", "stage")}},
				{"Age of the batch", "Age of the oldest record of the current batch.", seconds, false, []Query{worst("fanfare_stage_head_lag_seconds", "stage", "topic")}},
				{"Retries", "Batches that failed and were retried, and transactions that were aborted and repeated.", count, false, []Query{
					grown("fanfare_stage_retries_total", "stage").named("retries"), grown("fanfare_stage_transaction_aborts_total", "stage").named("aborts"),
				}},
				{"Dead letters", "Records that could not be handled. Their recipients still get an outcome.", count, false, []Query{grown("fanfare_stage_dead_letters_total", "stage", "topic")}},
			}},
		},
	}
}

func outcomes() Dashboard {
	return Dashboard{
		ID: "fanfare-outcomes", Title: "Fanfare: receipts and statistics",
		About: "The receipts of carriers, and how they reach the statistics and customers' webhooks.",
		Rows: []Row{
			{"Receipts", []Panel{
				{"From carriers", "Receipts read from the sessions of carriers.", perSecond, false, []Query{rate("fanfare_sender_receipts_total", "route")}},
				{"Callbacks of carriers", "Requests of carriers at /api/callback/ROUTE, by result.", perSecond, false, []Query{rate("fanfare_api_callbacks_total", "result")}},
				{"Messages of recipients", "Messages that recipients wrote, read from the sessions of carriers.", perSecond, false, []Query{rate("fanfare_sender_inbound_total", "route")}},
				{"Callbacks read", "Callbacks that became receipts or messages of recipients. Dead ones are in callbacks.dlq with the reason.", perSecond, false, []Query{rate("fanfare_callback_callbacks_total", "result")}},
				{"Receipts by result", "Unmatched receipts are parked until their hand-over is known. Forged ones have an id that Fanfare did not sign.", perSecond, true, []Query{rate("fanfare_tracker_receipts_total", "result")}},
				{"Delay", "Time from the arrival of a receipt to its delivery event.", seconds, false, []Query{
					quantile("0.50", "fanfare_tracker_receipt_delay_seconds"), quantile("0.99", "fanfare_tracker_receipt_delay_seconds"),
				}},
				{"Waits", "Batches that waited for Redis, for the index of provider ids, or for a campaign.", count, false, []Query{grown("fanfare_tracker_waits_total", "for")}},
				{"Index of provider ids", "Receipts that came before the answer to their hand-over, and provider ids that were dropped because Redis was away too long.", count, false, []Query{
					grown("fanfare_sender_receipts_rejoined_total", "route", "lane").named("rejoined"), grown("fanfare_sender_provider_ids_dropped_total", "route", "lane").named("dropped"),
				}},
				{"Index rebuilt", "Trackers rebuild the index of provider ids from the topics after Redis has lost it.", count, false, []Query{grown("fanfare_tracker_rendezvous_rebuilds_total", "result")}},
			}},
			{"Statistics", []Panel{
				{"Rows of a batch", "Rows per batch: larger batches cost less per row.", count, false, []Query{quantile("0.50", "fanfare_analytics_batch_rows"), mean("fanfare_analytics_batch_rows")}},
				{"Time of the store", "Time of one flush into the database of the statistics.", seconds, false, []Query{
					quantile("0.50", "fanfare_analytics_append_seconds"), quantile("0.99", "fanfare_analytics_append_seconds"),
				}},
				{"Waiting", "Records that are read and not stored yet. The number grows to a bound while the database is away.", count, false, []Query{total("fanfare_analytics_rows_waiting").named("records")}},
				{"Retries", "Steps that failed and were retried.", count, true, []Query{grown("fanfare_analytics_retries_total", "step")}},
				{"Dead letters", "Records that cannot be stored as delivery events.", count, true, []Query{grown("fanfare_analytics_dead_letters_total", "cause")}},
				{"Replays and gaps", "Batches that an earlier owner had declared, and partitions whose records were deleted before they were read.", count, false, []Query{
					grown("fanfare_analytics_replays_total").named("replays"), grown("fanfare_analytics_gaps_total").named("gaps"),
				}},
			}},
			{"Links", []Panel{
				{"Requests for links and opt-outs", "Requests that recipients make to the role edge, by result. Unknown: a token that Fanfare did not make. Limited: too many requests from one address.", perSecond, true, []Query{rate("fanfare_edge_requests_total", "result")}},
				{"Links opened", "By visitor: a person or a program. The click-through rate counts people only.", perSecond, true, []Query{rate("fanfare_edge_clicks_total", "class")}},
				{"Redirect", "Time to answer a redirect. It includes the publication of the click.", seconds, false, []Query{quantile("0.50", "fanfare_edge_redirect_seconds"), quantile("0.99", "fanfare_edge_redirect_seconds")}},
				{"Rules of countries", "Campaigns that do not keep the rules of a country when they are confirmed or started, or when their time or calling hours are changed. By the tenant's policy they are refused, or go on with a warning.", perSecond, true, []Query{rate("fanfare_api_compliance_total", "result")}},
				{"Confirmations of opt-outs", "Messages that confirm an opt-out to the recipient. If one fails, the opt-out holds all the same.", perSecond, true, []Query{rate("fanfare_api_confirmations_total", "result")}},
				{"Opt-outs and messages of recipients", "What the stage inbound recorded. Dead ones are in inbound.dlq with the reason.", perSecond, true, []Query{rate("fanfare_inbound_records_total", "result")}},
				{"Not published", "Clicks and opt-outs that wait in the file of an edge, and those that were lost because it was full.", count, false, []Query{
					total("fanfare_edge_waiting").named("waiting"), grown("fanfare_edge_lost_total").named("lost"),
				}},
			}},
			{"Webhooks", []Panel{
				{"Queued", "Events queued for customers' endpoints. An event for two endpoints counts twice.", perSecond, false, []Query{rate("fanfare_webhook_events_total").named("events")}},
				{"Requests", "By result. Refused: another status than 2xx. Unreachable: no answer.", perSecond, true, []Query{rate("fanfare_webhook_requests_total", "result")}},
				{"Wait", "From when an event was due until its first answer.", seconds, false, []Query{quantile("0.50", "fanfare_webhook_wait_seconds"), quantile("0.99", "fanfare_webhook_wait_seconds")}},
				{"Endpoint's answer", "Time of a request. It is cut off after five seconds.", seconds, false, []Query{quantile("0.50", "fanfare_webhook_answer_seconds"), quantile("0.99", "fanfare_webhook_answer_seconds")}},
				{"Endpoints", "Endpoints delivered to, and those whose last three requests failed: one request at a time asks whether they are back.", count, false, []Query{
					total("fanfare_webhook_endpoints").named("all"), total("fanfare_webhook_failing_endpoints").named("failing"),
				}},
				{"Given up and disabled", "Events that an endpoint has refused for three days, endpoints that are gone or have failed for five, and failures of the queue in the store.", count, false, []Query{
					grown("fanfare_webhook_given_up_total").named("events given up"), grown("fanfare_webhook_disabled_total").named("endpoints disabled"),
					grown("fanfare_webhook_store_errors_total").named("store"),
				}},
			}},
		},
	}
}

func control() Dashboard {
	return Dashboard{
		ID: "fanfare-control", Title: "Fanfare: API and control plane",
		About: "Requests, and how changes in the store reach all processes.",
		Rows: []Row{
			{"API", []Panel{
				{"Requests", "By operation.", perSecond, true, []Query{rate("fanfare_api_requests_total", "operation")}},
				{"By status", "429: a limit was reached. 503: a service is away.", perSecond, true, []Query{rate("fanfare_api_requests_total", "status")}},
				{"Latency", "99th percentile of the time to answer.", seconds, false, []Query{quantile("0.99", "fanfare_api_request_seconds", "operation")}},
				{"Panics", "Each panic is a bug.", count, false, []Query{grown("fanfare_api_panics_total").named("panics")}},
				{"Exports and segments", "Running exports and segments, and the rows that they write per second.", count, false, []Query{
					total("fanfare_api_jobs_running", "kind").named("running"), rate("fanfare_api_job_rows_total", "kind").named("rows/s"),
				}},
				{"Exports and segments that ended", "By kind and result.", count, false, []Query{grown("fanfare_api_jobs_total", "kind", "state")}},
				{"Domains of links", "By health: only ok and unchecked domains get recipients. Without domains: campaigns that are suspended because no domain has room.", count, false, []Query{
					worst("fanfare_api_domains", "health"), worst("fanfare_api_campaigns_without_domains").named("without domains"),
				}},
				{"Connections", "Open connections of clients, and new ones per second.", count, false, []Query{
					total("fanfare_http_connections", "instance").named("open"), rate("fanfare_http_accepted_total", "instance").named("accepted/s"),
				}},
				{"Clients cut off", "Connections closed because a cap was reached: too many connections, requests, or bytes that clients have not read.", count, false, []Query{
					grown("fanfare_http_cut_off_total", "cap"),
				}},
				{"Answers not read", "Bytes of answers that clients have not read yet.", bytesUnit, false, []Query{total("fanfare_http_buffered_bytes", "instance")}},
			}},
			{"Control plane", []Panel{
				{"Published", "Rows that the relay published, by type.", perSecond, true, []Query{rate("fanfare_relay_published_total", "type")}},
				{"Delay", "Time from a change in the store to the acknowledgement by Kafka.", seconds, false, []Query{
					quantile("0.50", "fanfare_relay_delay_seconds"), quantile("0.99", "fanfare_relay_delay_seconds"),
				}},
				{"Faults", "Failures by cause; records published again because a topic had lost them or had an older version; records that readers refused.", count, false, []Query{
					grown("fanfare_relay_failures_total", "of").named("failed:"), grown("fanfare_relay_backwards_total").named("backwards"),
					grown("fanfare_relay_republished_total", "type").named("lost by the topic:"),
					grown("fanfare_view_refused_records_total").named("refused by readers"),
				}},
				{"Store and topics compared", "Time since the store was last compared with its topics to the end: once every ten minutes.", seconds, false, []Query{
					{`time() - max(fanfare_relay_compared_timestamp_seconds{job=~"$job"} > 0)`, "ago"},
				}},
				{"Opt-outs in memory", "The same number in every sender, unless one is behind.", count, false, []Query{worst("fanfare_view_suppressions", "instance")}},
			}},
			{"Processes", []Panel{
				{"CPU", "Cores in use.", count, false, []Query{{`rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])`, "{{instance}}"}}},
				{"Memory", "Resident memory.", bytesUnit, false, []Query{{`process_resident_memory_bytes{job=~"$job"}`, "{{instance}}"}}},
				{"Versions", "The version that each process runs. More than one version is normal only during an upgrade.", count, false, []Query{{`fanfare_build_info{job=~"$job"}`, "{{instance}} {{version}}"}}},
				{"Spans of traces", "With --otlp-endpoint. Dropped: the queue to the collector was full. Failed: the collector did not take them.", perSecond, false, []Query{rate("fanfare_trace_spans_total", "result")}},
				{"Goroutines", "Steady under a steady load.", count, false, []Query{{`go_goroutines{job=~"$job"}`, "{{instance}}"}}},
			}},
		},
	}
}

func clients() Dashboard {
	return Dashboard{
		ID: "fanfare-kafka", Title: "Fanfare: Kafka clients",
		About: "Traffic of the clients of each stage. The metrics of the brokers themselves are not here.",
		Rows: []Row{
			{"Traffic", []Panel{
				{"Produced", "Bytes by topic.", bytesRate, true, []Query{rate("fanfare_kafka_produce_bytes_total", "topic")}},
				{"Fetched", "Bytes by topic.", bytesRate, true, []Query{rate("fanfare_kafka_fetch_bytes_total", "topic")}},
				{"Sent and read", "All requests and responses, by client.", bytesRate, false, []Query{
					rate("fanfare_kafka_write_bytes_total", "client").named("sent"), rate("fanfare_kafka_read_bytes_total", "client").named("read"),
				}},
			}},
			{"Buffers and connections", []Panel{
				{"Buffered to produce", "Records and bytes that wait for an acknowledgement. The numbers grow while Kafka is away.", count, false, []Query{
					total("fanfare_kafka_buffered_produce_records_total", "client").named("records"), total("fanfare_kafka_buffered_produce_bytes", "client").named("bytes"),
				}},
				{"Buffered by fetches", "Records and bytes that are fetched and not polled yet.", count, false, []Query{
					total("fanfare_kafka_buffered_fetch_records_total", "client").named("records"), total("fanfare_kafka_buffered_fetch_bytes", "client").named("bytes"),
				}},
				{"Connections", "Connections opened and closed.", perSecond, false, []Query{
					rate("fanfare_kafka_connects_total", "client").named("opened"), rate("fanfare_kafka_disconnects_total", "client").named("closed"),
				}},
				{"Errors", "Failures to connect, to write and to read.", perSecond, false, []Query{
					rate("fanfare_kafka_connect_errors_total", "client").named("connect"), rate("fanfare_kafka_write_errors_total", "client").named("write"),
					rate("fanfare_kafka_read_errors_total", "client").named("read"),
				}},
			}},
		},
	}
}
