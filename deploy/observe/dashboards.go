package observe

// Dashboards are all pages, the one to look at first first.
func Dashboards() []Dashboard {
	return []Dashboard{overview(), sending(), dealing(), outcomes(), control(), clients()}
}

func overview() Dashboard {
	return Dashboard{
		ID: "fanfare-overview", Title: "Fanfare: overview",
		About: "From left to right and from top to bottom a message's way: taken in, dealt, handed over, answered, counted. Start here; the other pages go deeper.",
		Rows: []Row{
			{"Messages a second", []Panel{
				{"Dealt", "Recipients that the scheduler dealt, by purpose.", perSecond, true, []Query{rate("fanfare_scheduler_dealt_recipients_total", "purpose")}},
				{"Handed over", "Messages given to carriers.", perSecond, true, []Query{rate("fanfare_sender_submitted_total", "route", "lane")}},
				{"Outcomes", "What senders wrote of them, by kind. Ambiguous ones are held for ever or until a receipt comes.", perSecond, true, []Query{rate("fanfare_sender_outcomes_total", "kind")}},
				{"Receipts", "What became of the receipts of carriers.", perSecond, true, []Query{rate("fanfare_tracker_receipts_total", "result")}},
				{"Stored", "Delivery events that are in the statistics.", perSecond, false, []Query{rate("fanfare_analytics_events_total").named("events")}},
				{"Single sends", "Destinations of single sends, by result.", perSecond, true, []Query{rate("fanfare_api_single_sends_total", "result")}},
			}},
			{"What waits", []Panel{
				{"Backlog of routes", "Seconds that a route needs, at its limit, for what is not dealt yet.", seconds, false, []Query{worst("fanfare_scheduler_backlog_seconds", "route")}},
				{"In flight", "Dealt and not answered. About a second of the tightest limit.", count, true, []Query{worst("fanfare_scheduler_in_flight", "route", "lane")}},
				{"Statistics behind", "How far the statistics are behind the topic; -1 before that is known.", seconds, false, []Query{worst("fanfare_analytics_lag_seconds").named("lag")}},
			}},
			{"Who leads, and what is old", []Panel{
				{"Leaders", "One relay and one scheduler lead; 0 for longer than a session timeout (10 s) is an outage of that role.", count, false, []Query{
					total("fanfare_scheduler_leading").named("scheduler"), total("fanfare_relay_leading").named("relay"),
				}},
				{"Age of the control view", "Above 5 s (opt-outs: 1.5 s) nothing is sent.", seconds, false, []Query{
					worst("fanfare_view_age_seconds").named("campaigns, control"), worst("fanfare_view_suppressions_age_seconds").named("suppressions"),
				}},
				{"Uncertain", "Records that a crashed owner may have handed over: they become ambiguous.", count, false, []Query{grown("fanfare_window_uncertain_total", "topic")}},
			}},
		},
	}
}

func sending() Dashboard {
	return Dashboard{
		ID: "fanfare-sending", Title: "Fanfare: sending",
		About: "One sender per route and lane: the intent window (what may be in flight is written ahead), the tokens of the limits, the carrier's answers.",
		Rows: []Row{
			{"Route and lane", []Panel{
				{"Waiting", "Released by the window and not handed over: no token, or the carrier is slow.", count, false, []Query{total("fanfare_sender_waiting", "route", "lane")}},
				{"Oldest waiting", "How long the oldest of them waits.", seconds, false, []Query{worst("fanfare_sender_oldest_seconds", "route", "lane")}},
				{"Seconds of backlog", "What waits in senders, at the limit of the route.", seconds, false, []Query{worst("fanfare_sender_backlog_seconds", "route", "lane")}},
				{"At the carrier", "Handed over and not answered.", count, false, []Query{total("fanfare_sender_in_flight", "route", "lane")}},
				{"Carrier's answer", "From the hand-over to the answer.", seconds, false, []Query{
					quantile("0.50", "fanfare_sender_answer_seconds", "route", "lane"), quantile("0.99", "fanfare_sender_answer_seconds", "route", "lane"),
				}},
				{"Outcomes by code", "Why messages were not sent, or returned.", perSecond, true, []Query{rate(`fanfare_sender_outcomes_total{kind!="sent"}`, "kind", "code")}},
				{"No answer in time", "Time-outs become ambiguous; late answers end the doubt.", count, false, []Query{
					grown("fanfare_sender_timeouts_total", "route", "lane").named("time-outs"), grown("fanfare_sender_late_answers_total", "route", "lane").named("late"),
				}},
				{"Held back", "Breaker open: the carrier does not answer. Suspended: a partition is held until somebody looks.", count, false, []Query{
					worst("fanfare_sender_breaker_open", "route").named("breaker"), total("fanfare_sender_suspended_partitions", "route", "lane").named("suspended"),
				}},
				{"Put aside", "Not ours any more, poisoned, or single messages that must wait.", count, false, []Query{
					grown("fanfare_sender_forgotten_total", "route", "lane").named("forgotten"), grown("fanfare_sender_poison_total", "route", "lane").named("poison"),
					grown("fanfare_sender_held_total", "route", "lane").named("held"),
				}},
			}},
			{"Limits", []Panel{
				{"Tokens leased", "Tokens a second by lane: what the limits let through.", perSecond, true, []Query{rate("fanfare_ratelimit_tokens_total", "lane")}},
				{"Short of tokens", "Which level (route, tenant, sender, campaign) had not enough.", perSecond, false, []Query{
					rate("fanfare_ratelimit_denied_total", "level").named("limiter"), rate("fanfare_sender_tokens_denied_total", "route", "lane", "level").named("sender"),
				}},
				{"Tokens too old", "Leased, and too old when the carrier had room: paid for and not used.", count, false, []Query{grown("fanfare_sender_tokens_expired_total", "route", "lane")}},
				{"Calls to Redis", "About one per slice of 20 to 50 ms and sender, whatever the volume.", perSecond, false, []Query{rate("fanfare_ratelimit_calls_total").named("calls")}},
				{"Redis away", "Senders hold, and return nothing.", onOff, false, []Query{worst("fanfare_ratelimit_redis_away").named("away")}},
				{"Carrier throttles", "Each halves the pace of the route for all senders; it climbs back.", count, false, []Query{grown("fanfare_ratelimit_throttled_total").named("throttled")}},
			}},
			{"Intent window", []Panel{
				{"In the window", "Released records without an acknowledged outcome: at most this many are uncertain after a crash.", count, false, []Query{total("fanfare_window_in_flight", "topic")}},
				{"Queued and not polled", "Polled and waiting for room; and what is in the log behind them, control records included (never 0).", count, false, []Query{
					total("fanfare_window_queued", "topic").named("queued"), total("fanfare_window_backlog", "topic").named("in the log"),
				}},
				{"Age of the head", "Age of the oldest record without an outcome.", seconds, false, []Query{worst("fanfare_window_head_age_seconds", "topic")}},
				{"Commits", "Each settles and declares in one.", perSecond, false, []Query{rate("fanfare_window_commits_total", "topic")}},
				{"How long a commit takes", "About 6 ms on a real broker; the window must cover it.", seconds, false, []Query{quantile("0.99", "fanfare_window_commit_seconds", "topic")}},
				{"Refused and begun anew", "Refused commits, and partitions begun anew from what was committed: some in every rebalance.", count, false, []Query{
					grown("fanfare_window_refused_commits_total", "topic").named("refused"), grown("fanfare_window_resets_total", "topic").named("begun anew"),
				}},
				{"In doubt", "Uncertain after a crash; not answered when a partition was handed over in peace.", count, false, []Query{
					grown("fanfare_window_uncertain_total", "topic").named("uncertain"), grown("fanfare_window_handed_over_doubtful_total", "topic").named("handed over"),
				}},
				{"Twins dropped", "Submissions that were seen before. A broker that tore a transaction shows here.", count, false, []Query{grown("fanfare_window_seen_drops_total", "topic")}},
				{"Guards", "Guard trips: no commit in time, so nothing is submitted. Lost commits: the broker lost what it had acknowledged.", count, false, []Query{
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
		About: "The scheduler decides who is tried, now or again; the expander makes the messages, one transaction per batch of chunks.",
		Rows: []Row{
			{"Scheduler", []Panel{
				{"Chunks dealt", "By purpose: deal, again, cancel, single.", perSecond, true, []Query{rate("fanfare_scheduler_deals_total", "purpose")}},
				{"Events read", "Delivery events a second. The one dealer reads them all.", perSecond, false, []Query{rate("fanfare_scheduler_events_total").named("events")}},
				{"Ended here", "Recipients whom nothing follows, by kind.", perSecond, true, []Query{rate("fanfare_scheduler_ends_total", "kind")}},
				{"To be dealt again", "Recipients who wait for another try.", count, false, []Query{worst("fanfare_scheduler_due", "route")}},
				{"Longest overdue", "How long the longest overdue waits: limits are full, or dealing is withheld.", seconds, false, []Query{worst("fanfare_scheduler_oldest_due_seconds", "route")}},
				{"Withheld", "1 while nothing is dealt because of it.", onOff, false, []Query{worst("fanfare_scheduler_withheld", "cause")}},
				{"Transactions", "How long one takes.", seconds, false, []Query{quantile("0.99", "fanfare_scheduler_commit_seconds"), mean("fanfare_scheduler_commit_seconds")}},
				{"Trouble", "Terms begun anew, transactions aborted, deals made again, chunks that no cursor named, records that could not be read.", count, false, []Query{
					grown("fanfare_scheduler_restarts_total").named("restarts"), grown("fanfare_scheduler_aborted_transactions_total").named("aborted"),
					grown("fanfare_scheduler_redealt_total").named("made again"), grown("fanfare_scheduler_adopted_chunks_total").named("adopted"),
					grown("fanfare_scheduler_dead_letters_total").named("dead letters"),
				}},
				{"Strays", "Delivery events of nobody's try since the lead began.", count, false, []Query{worst("fanfare_scheduler_stray_events").named("strays")}},
				{"Campaigns and held messages", "Campaigns not settled; single sends that wait for their time.", count, false, []Query{
					worst("fanfare_scheduler_open_campaigns").named("campaigns"), worst("fanfare_scheduler_held_messages").named("held"),
				}},
				{"Moves", "Moves of campaigns asked of the store, by result.", count, true, []Query{grown("fanfare_scheduler_moves_total", "result")}},
				{"Taking over, and what it keeps", "How long the last take-over took; bytes of sets written a second.", count, false, []Query{
					worst("fanfare_scheduler_takeover_seconds").named("seconds of the last take-over"), rate("fanfare_scheduler_sets_bytes_total").named("bytes/s of sets"),
				}},
			}},
			{"Expander", []Panel{
				{"Recipients", "What they became: a message, or the sub-status of their outcome.", perSecond, true, []Query{rate("fanfare_expander_recipients_total", "result")}},
				{"Chunks", "What became of them.", perSecond, true, []Query{rate("fanfare_expander_chunks_total", "result")}},
				{"Waits", "Batches put off: for the view, or the store.", count, false, []Query{grown("fanfare_expander_waits_total", "for")}},
				{"Audience blobs", "Where they were found.", perSecond, true, []Query{rate("fanfare_expander_blob_reads_total", "from")}},
			}},
			{"Stages", []Panel{
				{"Batches", "Records of a batch.", count, false, []Query{mean("fanfare_stage_batch_records", "stage")}},
				{"Handling", "How long a batch is handled.", seconds, false, []Query{quantile("0.99", "fanfare_stage_handle_seconds", "stage")}},
				{"Age of what is in hand", "Age of the oldest record of the batch in hand.", seconds, false, []Query{worst("fanfare_stage_head_lag_seconds", "stage", "topic")}},
				{"Again", "Batches that failed and were tried again; transactions aborted and redone.", count, false, []Query{
					grown("fanfare_stage_retries_total", "stage").named("retries"), grown("fanfare_stage_transaction_aborts_total", "stage").named("aborts"),
				}},
				{"Dead letters", "Records that could not be handled. Each also has an outcome: nobody vanishes.", count, false, []Query{grown("fanfare_stage_dead_letters_total", "stage", "topic")}},
			}},
		},
	}
}

func outcomes() Dashboard {
	return Dashboard{
		ID: "fanfare-outcomes", Title: "Fanfare: receipts and statistics",
		About: "What carriers say of messages, and how it gets into the statistics.",
		Rows: []Row{
			{"Receipts", []Panel{
				{"From carriers", "Receipts taken from carriers' sessions.", perSecond, false, []Query{rate("fanfare_sender_receipts_total", "route")}},
				{"What became of them", "Unmatched ones are parked until their hand-over is known; forged ones bear another's signature.", perSecond, true, []Query{rate("fanfare_tracker_receipts_total", "result")}},
				{"Delay", "From a receipt coming in to its event.", seconds, false, []Query{
					quantile("0.50", "fanfare_tracker_receipt_delay_seconds"), quantile("0.99", "fanfare_tracker_receipt_delay_seconds"),
				}},
				{"Waits", "Batches put off: for Redis, the rendezvous, or a campaign.", count, false, []Query{grown("fanfare_tracker_waits_total", "for")}},
				{"Rendezvous", "Receipts that came before the answer; provider ids that Redis was away too long to take.", count, false, []Query{
					grown("fanfare_sender_receipts_rejoined_total", "route", "lane").named("rejoined"), grown("fanfare_sender_provider_ids_dropped_total", "route", "lane").named("dropped"),
				}},
				{"Rendezvous filled again", "After Redis lost it, from the topics.", count, false, []Query{grown("fanfare_tracker_rendezvous_rebuilds_total", "result")}},
			}},
			{"Statistics", []Panel{
				{"Rows of a batch", "Large batches are cheap ones.", count, false, []Query{quantile("0.50", "fanfare_analytics_batch_rows"), mean("fanfare_analytics_batch_rows")}},
				{"The store's time", "How long the store took for one flush.", seconds, false, []Query{
					quantile("0.50", "fanfare_analytics_append_seconds"), quantile("0.99", "fanfare_analytics_append_seconds"),
				}},
				{"Waiting", "Read and not stored: grows while the store is away, to a bound.", count, false, []Query{total("fanfare_analytics_rows_waiting").named("records")}},
				{"Retries", "Steps that failed and were tried again.", count, true, []Query{grown("fanfare_analytics_retries_total", "step")}},
				{"Dead letters", "Records that are no delivery event that can be stored.", count, true, []Query{grown("fanfare_analytics_dead_letters_total", "cause")}},
				{"Taken over, and lost", "Batches that an owner before had declared; partitions whose records were gone before they were read.", count, false, []Query{
					grown("fanfare_analytics_replays_total").named("taken over"), grown("fanfare_analytics_gaps_total").named("gaps"),
				}},
			}},
		},
	}
}

func control() Dashboard {
	return Dashboard{
		ID: "fanfare-control", Title: "Fanfare: API and control plane",
		About: "Requests, and how a change in the store reaches every process.",
		Rows: []Row{
			{"API", []Panel{
				{"Requests", "By operation.", perSecond, true, []Query{rate("fanfare_api_requests_total", "operation")}},
				{"By status", "429: a limit was reached. 503: a service is away.", perSecond, true, []Query{rate("fanfare_api_requests_total", "status")}},
				{"How long", "99 of 100 requests are quicker.", seconds, false, []Query{quantile("0.99", "fanfare_api_request_seconds", "operation")}},
				{"Panics", "Each is a bug.", count, false, []Query{grown("fanfare_api_panics_total").named("panics")}},
			}},
			{"Control plane", []Panel{
				{"Published", "Rows that the relay published, by type.", perSecond, true, []Query{rate("fanfare_relay_published_total", "type")}},
				{"Delay", "From a change in the store to its acknowledgement by Kafka.", seconds, false, []Query{
					quantile("0.50", "fanfare_relay_delay_seconds"), quantile("0.99", "fanfare_relay_delay_seconds"),
				}},
				{"Trouble", "Failures by what failed; records found to have gone backwards, published again; records that readers refused.", count, false, []Query{
					grown("fanfare_relay_failures_total", "of").named("failed:"), grown("fanfare_relay_backwards_total").named("backwards"),
					grown("fanfare_view_refused_records_total").named("refused by readers"),
				}},
				{"Opt-outs in memory", "The same in every sender, or one is behind.", count, false, []Query{worst("fanfare_view_suppressions", "instance")}},
			}},
			{"Processes", []Panel{
				{"CPU", "Cores used.", count, false, []Query{{`rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])`, "{{instance}}"}}},
				{"Memory", "Resident.", bytesUnit, false, []Query{{`process_resident_memory_bytes{job=~"$job"}`, "{{instance}}"}}},
				{"Goroutines", "Steady under steady load.", count, false, []Query{{`go_goroutines{job=~"$job"}`, "{{instance}}"}}},
			}},
		},
	}
}

func clients() Dashboard {
	return Dashboard{
		ID: "fanfare-kafka", Title: "Fanfare: Kafka clients",
		About: "What the clients of each stage do at the broker. The broker's own metrics are the broker's.",
		Rows: []Row{
			{"Traffic", []Panel{
				{"Produced", "Bytes by topic.", bytesRate, true, []Query{rate("fanfare_kafka_produce_bytes_total", "topic")}},
				{"Fetched", "Bytes by topic.", bytesRate, true, []Query{rate("fanfare_kafka_fetch_bytes_total", "topic")}},
				{"Sent and read", "All requests and answers, by client.", bytesRate, false, []Query{
					rate("fanfare_kafka_write_bytes_total", "client").named("sent"), rate("fanfare_kafka_read_bytes_total", "client").named("read"),
				}},
			}},
			{"Buffers and connections", []Panel{
				{"Buffered to produce", "Records and bytes that wait to be acknowledged: grows while Kafka is away.", count, false, []Query{
					total("fanfare_kafka_buffered_produce_records_total", "client").named("records"), total("fanfare_kafka_buffered_produce_bytes", "client").named("bytes"),
				}},
				{"Buffered by fetches", "Records and bytes that were fetched and not polled.", count, false, []Query{
					total("fanfare_kafka_buffered_fetch_records_total", "client").named("records"), total("fanfare_kafka_buffered_fetch_bytes", "client").named("bytes"),
				}},
				{"Connections", "Made and ended.", perSecond, false, []Query{
					rate("fanfare_kafka_connects_total", "client").named("made"), rate("fanfare_kafka_disconnects_total", "client").named("ended"),
				}},
				{"Errors", "Connecting, writing, reading.", perSecond, false, []Query{
					rate("fanfare_kafka_connect_errors_total", "client").named("connect"), rate("fanfare_kafka_write_errors_total", "client").named("write"),
					rate("fanfare_kafka_read_errors_total", "client").named("read"),
				}},
			}},
		},
	}
}
