//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

func (c *ctl) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Versions of margayctl and of the forwarder that runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s *dataplanev1.Status
			err := c.ask(cmd.Context(), func(ctx context.Context, client inspect) (err error) {
				s, err = client.GetStatus(ctx, &dataplanev1.StatusRequest{})
				return err
			})
			if err != nil && !errors.Is(err, errNoForwarder) {
				fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
			}
			if c.format != render.Text {
				return c.versionDocument(s)
			}
			fmt.Fprintln(c.out, version.Line("margayctl"))
			if s == nil {
				_, err = fmt.Fprintln(c.out, "margay-forwarder: none answers")
				return err
			}
			_, err = fmt.Fprintf(c.out, "margay-forwarder %s (contract %d)\n", s.GetVersion(), s.GetContract())
			return err
		},
	}
}

// versionDocument prints both versions; forwarder is null if none answers.
func (c *ctl) versionDocument(s *dataplanev1.Status) error {
	var forwarder any
	if s != nil {
		forwarder = map[string]any{"version": s.GetVersion(), "contract": s.GetContract()}
	}
	doc, err := structpb.NewStruct(map[string]any{
		"margayctl": map[string]any{"version": version.Version(), "commit": version.Commit(), "contract": uint32(version.Contract)},
		"forwarder": forwarder,
	})
	if err != nil {
		return fmt.Errorf("write versions: %w", err)
	}
	return render.Document(c.out, c.format, doc)
}
