// Package clickhouse is the analytics store on ClickHouse.
//
// The tables are defined in schemas/clickhouse. Table events has every event. Materialized views, which the same insert
// fills, have the sets of recipients that reached each precedence, the sets of hand-overs with their dimensions and
// prices, and a timeline. The sets are bitmap states that ClickHouse merges in the background. Every query merges the
// states that are not merged yet, so no answer depends on the background merges, and no query uses FINAL.
//
//   - A batch is one synchronous INSERT of one block, with a deduplication token made of its identity. Each table
//     remembers the tokens of its last 10,000 inserts, about half an hour at full speed. While a table remembers the
//     token, a repeated batch is not inserted again. After that, a repeated batch counts again in the timeline, and
//     nowhere else.
//   - Statistics are one query over a few hundred rows, whatever the size of the campaign.
//   - ch-go sends the rows as columns. clickhouse-go sends the queries. Values are query parameters, never part of the
//     text.
//   - The store keeps no positions, so its feed must declare batches before it appends them.
//
// The store expects a single server, or a load balancer that keeps a session on one replica.
package clickhouse
