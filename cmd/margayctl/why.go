//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/cmd/margayctl/why"
	"margay.dev/margay/internal/pkt"
)

func (c *ctl) why() *cobra.Command {
	var sourcePort uint16
	cmd := &cobra.Command{
		Use: "why SOURCE DESTINATION PORT[/PROTOCOL]", Short: "Why a connection may be opened or not: route, tiers, rules, and what would turn it", Args: whyArgs,
		Long: `Why asks the tables in force what would become now of the first packet of a
connection: who sends and gets it, the route, what each tier of the source's
egress and the destination's ingress policy says and by which rule, the way of
replies, and the connections that are known. No packet is sent.

SOURCE and DESTINATION are addresses, or endpoints of this node by id, the end
of the id, or port. PORT is a number and for TCP, unless /udp or /sctp follows;
icmp or echo is an echo request, proto/NUMBER another protocol.

A forwarder knows the policy of its own endpoints. Where the other end lives on
another node, ask there too.

The nearest changes come last: each was tried on the lists in force and turns
what policy says.`,
		Example: `  margayctl why ann bob 80
  margayctl why 10.1.0.2 10.1.0.3 53/udp
  margayctl why ann fd00::3 icmp -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := whyRequest(args)
			if err != nil {
				return err
			}
			request.SourcePort = uint32(sourcePort)
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.ExplanationList, error) {
				return i.Explain(ctx, request)
			}, func(w io.Writer, l *dataplanev1.ExplanationList) error { return why.Write(w, l, meanings) })
		},
	}
	cmd.Flags().Uint16Var(&sourcePort, "source-port", 0, "port that the connection comes from; 0: one that clients use")
	return cmd
}

func whyArgs(_ *cobra.Command, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%d words, want SOURCE DESTINATION PORT[/PROTOCOL], as in: margayctl why ann bob 80", len(args))
	}
	return nil
}

// whyRequest reads what is asked.
func whyRequest(args []string) (*dataplanev1.ExplainRequest, error) {
	out := &dataplanev1.ExplainRequest{Source: args[0], Destination: args[1], Protocol: pkt.ProtoTCP}
	port, name, named := strings.Cut(strings.ToLower(args[2]), "/")
	bad := fmt.Errorf("%q is no port: want a number from 1 to 65535, with /tcp, /udp or /sctp if you like, or icmp, or proto/NUMBER", args[2])
	switch {
	case !named && (port == "icmp" || port == "echo" || port == "icmpv6"):
		out.Protocol, out.Echo = 0, true
		return out, nil
	case port == "proto":
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no protocol: want proto/1 to proto/255", args[2])
		}
		out.Protocol = uint32(n)
		return out, nil
	case name == "udp":
		out.Protocol = pkt.ProtoUDP
	case name == "sctp":
		out.Protocol = pkt.ProtoSCTP
	case named && name != "tcp":
		return nil, bad
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, bad
	}
	out.DestinationPort = uint32(n)
	return out, nil
}
