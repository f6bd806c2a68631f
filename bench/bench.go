package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"margay.dev/margay/bench/classify"
	"margay.dev/margay/bench/control"
	"margay.dev/margay/bench/forward"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/idle"
	"margay.dev/margay/bench/latency"
	"margay.dev/margay/bench/lookup"
	"margay.dev/margay/bench/nodes"
	"margay.dev/margay/bench/outage"
	"margay.dev/margay/bench/pods"
	"margay.dev/margay/bench/policy"
	"margay.dev/margay/bench/veth"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

// The exit statuses.
const (
	statusDone = iota
	statusFailed
	statusUsage
)

// ruleSets are the rule sets and traces of the scenario classifier.
//
//go:embed testdata/*.gz
var ruleSets embed.FS // arch:var embedded

// scenarios are all there are.
func scenarios() []harness.Scenario {
	return []harness.Scenario{
		forward.Scenario(), lookup.Scenario(), lookup.Labels(), classify.Scenario(ruleSets), policy.Scenario(), pods.Scenario(), pods.Scaling(), nodes.Scenario(),
		latency.Scenario(), idle.Scenario(), veth.Scenario(), veth.Scaling(), outage.Restart(), outage.Reload(), outage.Handover(), control.Scenario(),
	}
}

// bench is one run of the program.
type bench struct {
	out, log  io.Writer
	scenarios func() []harness.Scenario

	quick  bool
	output string
	filter string

	forwarder string
	rules     string // files of the scenario classifier
	trace     string
	profile   string // file for a CPU profile
}

// errRun is an error of running what was asked for, not of asking.
type errRun struct{ error }

func (e errRun) Unwrap() error { return e.error }

func (b *bench) run(ctx context.Context, args []string) int {
	root := b.root()
	root.SetArgs(args)
	root.SetOut(b.out)
	root.SetErr(b.log)
	err := root.ExecuteContext(ctx)
	var failed errRun
	switch {
	case err == nil:
		return statusDone
	case errors.As(err, &failed):
		fmt.Fprintf(b.log, "margay-bench: %v\n", err)
		return statusFailed
	}
	fmt.Fprintf(b.log, "margay-bench: %v\nTry margay-bench --help.\n", err)
	return statusUsage
}

func (b *bench) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "margay-bench",
		Short:         "Measure the forwarder against its peers",
		Version:       version.Line("margay-bench"),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(b.list(), b.runCommand(), b.hold())
	return root
}

// hold is what the scenario restart starts in order to kill it.
func (b *bench) hold() *cobra.Command {
	return &cobra.Command{
		Use: outage.HoldCommand + " DIR LAB NODE", Hidden: true, Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			if err := outage.Hold(c.Context(), args[0], args[1], args[2], os.Stdin, b.out); err != nil {
				return errRun{err}
			}
			return nil
		},
	}
}

func (b *bench) list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Name the scenarios", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t := render.NewTable("SCENARIO", "WHAT IT MEASURES")
			for _, s := range b.scenarios() {
				t.Row(s.Name, s.About)
			}
			return t.Write(b.out)
		},
	}
}

func (b *bench) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "run SCENARIO...", Short: "Run scenarios, \"all\" for all of them", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			return b.profiled(func() error { return b.runScenarios(c.Context(), names) })
		},
	}
	c.Flags().BoolVar(&b.quick, "quick", false, "end each scenario within 50 s, with fewer cases and windows")
	c.Flags().StringVarP(&b.output, "output", "o", "table", "table, or json: one object a line, as soon as it is there")
	c.Flags().StringVar(&b.filter, "filter", "", "run only cases of which SCENARIO/CASE contains this")
	c.Flags().StringVar(&b.forwarder, "forwarder", besides("margay-forwarder"), "the forwarder's program, for all scenarios but graph, fib, label, classifier and policy")
	c.Flags().StringVar(&b.rules, "rules", "", "a rule set for the scenario classifier instead of its own, in ClassBench's format, plain or gzip")
	c.Flags().StringVar(&b.trace, "trace", "", "headers for that rule set, likewise; without it, seeded ones are made")
	c.Flags().StringVar(&b.profile, "cpuprofile", "", "write a CPU profile of this process to a file, for go tool pprof; choose one case by --filter")
	return c
}

// profiled runs f and writes a profile of it, if one is asked for.
func (b *bench) profiled(f func() error) error {
	if b.profile == "" {
		return f()
	}
	file, err := os.Create(b.profile)
	if err != nil {
		return fmt.Errorf("make the CPU profile: %w", err)
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return errRun{fmt.Errorf("start the CPU profile: %w", err)}
	}
	err = f()
	pprof.StopCPUProfile()
	return err
}

// besides is the path of a program in the folder of this one.
func besides(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

func (b *bench) runScenarios(ctx context.Context, names []string) error {
	chosen, err := b.choose(names)
	if err != nil {
		return err
	}
	o := harness.Options{Quick: b.quick, Filter: b.filter, Log: b.log, Forwarder: b.forwarder, Rules: b.rules, Trace: b.trace}
	table := &harness.Table{}
	switch b.output {
	case "json":
		o.Out = harness.JSON(b.out)
	case "table":
		o.Out = table.Add
	default:
		return fmt.Errorf("output is %q, want table or json", b.output)
	}
	err = harness.Run(ctx, o, chosen...)
	if err = errors.Join(err, table.Write(b.out)); err != nil {
		return errRun{err}
	}
	return nil
}

// choose finds scenarios by name.
func (b *bench) choose(names []string) (chosen []harness.Scenario, err error) {
	all := b.scenarios()
	if len(names) == 1 && names[0] == "all" {
		return all, nil
	}
	var known []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, name := range names {
		i := slices.Index(known, name)
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q: have %s, or all", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
