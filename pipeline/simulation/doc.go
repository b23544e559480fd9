// Package simulation runs the real stages of the pipeline in fake time, breaks the services that they use, and compares
// what the stages report with what the carrier saw. The package consists of tests.
//
// The relay, view, scheduler, expander, sender (with intent window and rate limiter), tracker (with its index) and the
// feed of analytics (with its SQLite store) are the real ones. The broker is kfake on a network in memory, Redis is
// miniredis, and the carrier is sinks/carrier/sim. Only the store of the API is a model in memory (plane_test.go).
// Everything runs in a bubble of testing/synctest, so a minute of traffic takes a fraction of a second.
//
// A seed determines the campaigns, the carrier, the processes and every fault with its time. It does not determine the
// order in which goroutines run, so a second run of the same seed may go differently. To reproduce a failure, run the
// seed several times with -count.
//
//	world_test.go       one run: broker, Redis, carrier, truth, trace
//	plane_test.go       the store: campaigns by compare-and-set, frozen audiences, the outbox that the relay reads
//	singles_test.go     single sends, as the API writes them
//	process_test.go     a process that runs roles, and can be killed, paused and stopped
//	network_test.go     the connections of a process: where they are cut, and after which request
//	faults_test.go      the faults, drawn from the seed
//	oracles_test.go     what must hold, checked against the carrier's truth
//	simulation_test.go  the seeds that `make test` and `make chaos` run
//	planted_test.go     bugs that are planted on purpose, to show that the oracles find them
//
// To kill a process at a named point, the network cuts its connections: before it sends a request of one kind, or
// before it gets the answer. So the code of the stages needs no hooks, and a process can die at every point at which it
// does something that others can see.
package simulation
