// Package clickhouse keeps analytics in ClickHouse.
//
// The tables are in schemas/clickhouse: events as they came, and three views that are filled by the same insert: who ever
// reached each precedence, who was handed over how and at which price, and a chart. Sets are bitmaps that ClickHouse merges when it likes: every
// question merges what is not merged yet, so no answer depends on that, and none needs FINAL.
//
//   - A batch is one INSERT of one block, synchronous, with a deduplication token made of its identity. The token is kept for the
//     last 10,000 inserts of each table: a batch that comes again within those, some half an hour at full speed, is not
//     inserted again anywhere. After that it counts again in the chart, and in nothing else.
//   - Statistics are one query over some hundred rows, however large the campaign.
//   - Rows are sent as columns by ch-go; questions are asked by clickhouse-go, values as parameters of the query, never in its text.
//   - The store keeps no positions: whoever feeds it must declare batches before appending them.
//
// A single server is read as it stands. With replicas, let the load balancer keep a session on one of them.
package clickhouse
