//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/config"
	"margay.dev/margay/internal/doctor"
	"margay.dev/margay/internal/render"
)

func (c *ctl) doctor() *cobra.Command {
	var o doctor.Options
	var brief bool
	var state string
	cmd := &cobra.Command{
		Use:   "doctor [DEVICE...]",
		Short: "Find what keeps the forwarder from working, or from being fast",
		Long: `doctor looks at the node and at devices in the present network namespace, with
or without a running forwarder, and says what to do about what it finds. It
changes nothing. Where a running forwarder knows more, its word counts.

Without DEVICE it looks at the forwarder's ports or, without a forwarder, at
every device that could be one; nothing about the latter counts as a fault.

Exit status: 0 no fault, 1 a fault was found.`,
		RunE: func(cmd *cobra.Command, devices []string) error {
			o.Journal = filepath.Join(state, "journal")
			for _, name := range devices {
				o.Devices = append(o.Devices, doctor.DeviceSpec{Name: name})
			}
			findings, err := c.examine(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := c.printFindings(findings, brief); err != nil {
				return err
			}
			if doctor.Worst(findings) >= doctor.Fault {
				return errFault
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&brief, "brief", false, "leave out what is as it should be")
	cmd.Flags().StringVar(&o.HostPort, "host-port", doctor.DefaultHostPort, "name of the host port")
	cmd.Flags().StringVar(&state, "state-dir", config.Default().StateDir, "folder where the forwarder notes the settings it changed")
	return cmd
}

// examine looks at the node, and asks the forwarder if there is one.
func (c *ctl) examine(ctx context.Context, o doctor.Options) ([]doctor.Finding, error) {
	local, err := c.diagnose(ctx, o)
	if err != nil {
		return nil, unreachable{err}
	}
	var inside []doctor.Finding
	err = c.ask(ctx, func(ctx context.Context, client inspect) error {
		d, err := client.Diagnose(ctx, &dataplanev1.DiagnoseRequest{})
		inside = doctor.FromWire(d)
		return err
	})
	switch {
	case errors.Is(err, errNoForwarder):
		fmt.Fprintf(c.errOut, "margayctl: no forwarder answers at %s: only the node itself was looked at\n", c.socket)
	case err != nil:
		local = append(local, doctor.Finding{Check: "forwarder", Severity: doctor.Fault,
			Found: strings.Join(strings.Fields(err.Error()), " "), Advice: "mend this first: below is what can be seen from outside"})
	}
	if len(o.Devices) == 0 && slices.ContainsFunc(inside, aboutDevice) {
		local = slices.DeleteFunc(local, aboutDevice) // the forwarder knows which devices matter
	}
	return doctor.Merge(local, inside), nil
}

func aboutDevice(f doctor.Finding) bool { return f.Subject != "" }

func (c *ctl) printFindings(findings []doctor.Finding, brief bool) error {
	shown := findings
	if brief {
		shown = slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool { return f.Severity == doctor.OK })
	}
	if c.format != render.Text {
		return render.Document(c.out, c.format, doctor.ToWire(shown))
	}
	findingTable(c.out, shown)
	var count [doctor.Fault + 1]int
	for _, f := range findings {
		count[min(f.Severity, doctor.Fault)]++
	}
	_, err := fmt.Fprintf(c.out, "%d ok, %s, %s, %s\n", count[doctor.OK],
		render.Plural(count[doctor.Note], "note"), render.Plural(count[doctor.Warning], "warning"), render.Plural(count[doctor.Fault], "fault"))
	return err
}

// findingTable prints findings below what they are about, each with its advice.
func findingTable(w io.Writer, findings []doctor.Finding) {
	widest := 0
	for _, f := range findings {
		widest = max(widest, len(f.Check))
	}
	for i, f := range findings {
		switch {
		case i == 0:
			fmt.Fprintln(w, heading(f.Subject))
		case f.Subject != findings[i-1].Subject:
			fmt.Fprintf(w, "\n%s\n", heading(f.Subject))
		}
		fmt.Fprintf(w, "  %-7s  %-*s  %s\n", f.Severity, widest, f.Check, f.Found)
		if f.Advice != "" && f.Severity > doctor.OK {
			fmt.Fprintf(w, "  %-7s  %-*s  → %s\n", "", widest, "", f.Advice)
		}
	}
	if len(findings) > 0 {
		fmt.Fprintln(w)
	}
}

// heading is what findings about one subject stand under.
func heading(subject string) string {
	if subject == "" {
		return "Node"
	}
	return "Device " + subject
}
