// Package tape carries packets between capture files and a worker. A Player
// reads a file ahead of the worker, a Recorder writes one behind it; each has a
// goroutine that does all that can block, and a ring of bounded size to the
// worker, which never waits for it.
//
//	file ► Player's goroutine ► ring ► worker ► ring ► Recorder's goroutine ► file
//
// What the worker calls copies no packet and allocates nothing.
package tape
