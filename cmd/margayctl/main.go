//go:build linux

// Command margayctl works on the objects of a cluster, shows what the forwarder of
// this node does, and finds out what keeps it from doing it well.
//
//	margayctl get KIND [NAME...]
//	margayctl create|apply|replace|delete|validate|convert -f FILE
//	margayctl patch|label KIND NAME ...
//	margayctl confirm [CHANGE]
//	margayctl node status
//	margayctl datastore migrate lock|unlock|export|import
//	margayctl version
//	margayctl policy diff -f FILE
//	margayctl show status|nodes|ports|fib|neighbors|drops|workers
//	margayctl flows [--endpoint ENDPOINT] [--host ADDRESS] [--port PORT] [--denied]
//	margayctl policy list|show ENDPOINT
//	margayctl top
//	margayctl trace --filter EXPR -n N
//	margayctl capture --filter EXPR --stage rx,pre-tx,drop -w FILE
//	margayctl why SOURCE DESTINATION PORT[/PROTOCOL]
//	margayctl doctor [DEVICE...]
//
// Exit status: 0 done; 1 the doctor found a fault, a file could not be written, or
// an object failed; 2 the command line is wrong; 3 the forwarder or the store could not be asked.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/doctor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	status := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the program, apart from the process it runs in.
func run(ctx context.Context, args []string, env func(string) string, out, errOut io.Writer) int {
	c := &ctl{in: os.Stdin, out: out, errOut: errOut, env: env, diagnose: doctor.Diagnose, now: time.Now, terminal: isTerminal(out)}
	return c.run(ctx, args)
}
