// Package simulation runs the real stages of the pipeline in fake time, breaks what they run on, and compares what they say with
// what the carrier saw. It consists of tests.
//
// Real are: relay, view, scheduler, expander, sender with intent window and rate limiter, tracker with its index, and the feed of
// analytics with its SQLite store; the broker is kfake on a network in memory, Redis is miniredis, the carrier is sinks/carrier/sim.
// Only the store of the API is a model in memory (plane_test.go). Everything lives in a bubble of testing/synctest, so a minute of
// traffic takes a fraction of a second.
//
// A seed determines the campaigns, the carrier, the processes and every fault, with its time. It does not determine the order in
// which goroutines run, so the same seed may take another path the next time: a seed that has failed is run again with -count.
//
//	world_test.go       one run: broker, Redis, carrier, truth, trace
//	plane_test.go       the store: campaigns by compare-and-set, frozen audiences, the outbox that the relay reads
//	process_test.go     a process that runs roles, and can be killed, paused and stopped
//	network_test.go     the connections of a process: where they are cut, and after which request
//	faults_test.go      the faults, drawn from the seed
//	oracles_test.go     what must hold, checked against the carrier's truth
//	simulation_test.go  the seeds that `make test` and `make chaos` run
//	planted_test.go     bugs that are planted on purpose, to show that the oracles find them
//
// A process is killed at a named point by its connections: before a request of one kind leaves it, or before the answer comes in.
// So the code of the stages has no hook, and every point at which a stage does something that others can see is a point at which it
// can die.
package simulation
