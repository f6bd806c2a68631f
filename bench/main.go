// Margay-bench measures this project against its peers in one run.
//
//	margay-bench list
//	margay-bench run SCENARIO... [--quick] [-o table|json] [--filter SUBSTR] [--cpuprofile FILE]
//
// Results go to standard output, progress to standard error. Exit status: 0 all
// was run (whether or not it keeps to its budget), 1 something could not be, 2
// the command line is wrong.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the program, apart from the process it runs in.
func run(ctx context.Context, args []string, out, log io.Writer) int {
	b := &bench{out: out, log: log, scenarios: scenarios}
	return b.run(ctx, args)
}
