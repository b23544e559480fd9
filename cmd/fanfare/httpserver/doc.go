// Package httpserver serves HTTP so that no client can use up the file descriptors, memory and goroutines that the
// stages in the same process need.
//
//   - A connection may send headers for 10 s, may be idle for a minute, and must take at least 64 KB of an answer in 20
//     s.
//   - There is a cap on connections, on requests that are being answered, and on the bytes of answers that clients have
//     not taken.
//   - At a cap, the server does not turn a new client away if it can close an idle connection or cut off the client
//     that has stalled for the longest. A client stalls if it neither sends the rest of its request nor takes its
//     answer, for a second.
//   - A request that finds no room within 5 s is answered 503 with Retry-After.
//
// Handlers may set their own deadlines with [http.ResponseController], as imports and live streams do. A live stream
// (text/event-stream) does not count as a request that is being answered, but its connection does.
package httpserver
