package policy

import (
	"strings"
	"testing"
)

// rules is x/p with some rules, and the answers to questions of x/server, which
// only it governs: yes is allowed by rule 0, no denied by the end of the tier.
func rules(direction, list, questions string) scene {
	types := map[string]string{"ingress": "Ingress", "egress": "Egress"}[direction]
	return ruled(policyDoc("np", "x/p", "selector: app == 'server', types: ["+types+"], "+direction+": ["+list+"]"), questions)
}

func ruled(documents, questions string) scene {
	answers := strings.NewReplacer("= yes", "= Allow NetworkPolicy/x/p/0", "= no", "= Deny default", "in ", "x/server ingress ", "out ", "x/server egress ")
	return scene{cluster() + documents, answers.Replace(questions)}
}

func TestProtocols(t *testing.T) {
	play6(t, map[string]scene{
		"by name":   rules("ingress", "{action: Allow, protocol: TCP}", "in tcp 10.9.9.9 > 10.1.0.2 = yes\nin udp 10.9.9.9 > 10.1.0.2 = no"),
		"by number": rules("ingress", "{action: Allow, protocol: 47}", "in gre 10.9.9.9 > 10.1.0.2 = yes\nin udp 10.9.9.9 > 10.1.0.2 = no"),
		"not one":   rules("ingress", "{action: Allow, notProtocol: UDP}", "in tcp 10.9.9.9 > 10.1.0.2 = yes\nin udp 10.9.9.9 > 10.1.0.2 = no"),
		"one and not another": rules("ingress", "{action: Allow, protocol: TCP, notProtocol: UDP}",
			"in tcp 10.9.9.9 > 10.1.0.2 = yes\nin udp 10.9.9.9 > 10.1.0.2 = no\nin sctp 10.9.9.9 > 10.1.0.2 = no"),
		"one and not the same matches nothing, not everything": rules("ingress", "{action: Allow, protocol: TCP, notProtocol: TCP}",
			"in tcp 10.9.9.9 > 10.1.0.2 = no\nin udp 10.9.9.9 > 10.1.0.2 = no"),
		"ICMP of a type": rules("ingress", "{action: Allow, protocol: ICMP, icmp: {type: 8}}",
			"in icmp:8:0 10.9.9.9 > 10.1.0.2 = yes\nin icmp:8:7 10.9.9.9 > 10.1.0.2 = yes\nin icmp:0:0 10.9.9.9 > 10.1.0.2 = no\nin tcp 10.9.9.9 > 10.1.0.2@2048 = no"),
		"ICMP of a type and code": rules("ingress", "{action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}}",
			"in icmp:3:4 10.9.9.9 > 10.1.0.2 = yes\nin icmp:3:3 10.9.9.9 > 10.1.0.2 = no"),
		"not ICMP of a type": rules("ingress", "{action: Allow, protocol: ICMP, notICMP: {type: 8}}",
			"in icmp:8:0 10.9.9.9 > 10.1.0.2 = no\nin icmp:0:0 10.9.9.9 > 10.1.0.2 = yes\nin icmp:254:255 10.9.9.9 > 10.1.0.2 = yes\nin tcp 10.9.9.9 > 10.1.0.2 = no"),
		"ICMP of a type without a code": rules("ingress", "{action: Allow, protocol: ICMP, icmp: {type: 3}, notICMP: {type: 3, code: 1}}",
			"in icmp:3:0 10.9.9.9 > 10.1.0.2 = yes\nin icmp:3:1 10.9.9.9 > 10.1.0.2 = no\nin icmp:3:2 10.9.9.9 > 10.1.0.2 = yes"),
		"ICMP is of one family": rules("ingress", "{action: Allow, protocol: ICMP}",
			"in icmp:8:0 10.9.9.9 > 10.1.0.2 = yes\nin icmp:8:0 fd00::1 > fd00::2 = no\nin icmpv6:8:0 10.9.9.9 > 10.1.0.2 = no\nin icmpv6:128:0 fd00::1 > fd00::2 = no"),
		"ICMPv6 is of the other": rules("ingress", "{action: Allow, protocol: ICMPv6}",
			"in icmpv6:128:0 fd00::1 > fd00::2 = yes\nin icmpv6:128:0 10.9.9.9 > 10.1.0.2 = no\nin icmp:128:0 fd00::1 > fd00::2 = no"),
		"ICMPv6 for IPv4 matches nothing": rules("ingress", "{action: Allow, ipVersion: 4, protocol: ICMPv6}",
			"in icmpv6:128:0 fd00::1 > fd00::2 = no\nin icmpv6:128:0 10.9.9.9 > 10.1.0.2 = no"),
	})
}

func TestFamilies(t *testing.T) {
	four, six := "in tcp 10.9.9.9 > 10.1.0.2 = ", "\nin tcp fd00::9 > fd00::2 = "
	play6(t, map[string]scene{
		"both without a version":           rules("ingress", "{action: Allow}", four+"yes"+six+"yes"),
		"version 4":                        rules("ingress", "{action: Allow, ipVersion: 4}", four+"yes"+six+"no"),
		"version 6":                        rules("ingress", "{action: Allow, ipVersion: 6}", four+"no"+six+"yes"),
		"nets of one, absent in the other": rules("ingress", "{action: Allow, source: {nets: [10.0.0.0/8]}}", four+"yes"+six+"no"),
		"notNets of one, absent in the other": rules("ingress", "{action: Allow, source: {notNets: [10.8.0.0/16]}}",
			four+"yes"+six+"no"),
		"a deny that is absent denies nothing": rules("ingress", "{action: Allow, source: {notNets: ['fd00:1::/64', 10.9.9.9/32]}}, {action: Deny, destination: {nets: ['::/0']}}",
			four+"no"+six+"yes"),
		"nets of one and notNets of the other are in neither": rules("ingress", "{action: Allow, source: {nets: [10.0.0.0/8]}, destination: {notNets: ['fd00::/64']}}", four+"no"+six+"no"),
		"mixed nets, each in its family":                      rules("ingress", "{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/64']}}", four+"yes"+six+"yes"),
		"all addresses in notNets take the family away":       rules("ingress", "{action: Allow, source: {notNets: ['0.0.0.0/0', 'fd00:1::/64']}}", four+"no"+six+"yes"),
		"all addresses in nets are all of the family":         rules("ingress", "{action: Allow, source: {nets: ['0.0.0.0/0']}}", four+"yes"+six+"no"),
	})
}

func TestNets(t *testing.T) {
	play6(t, map[string]scene{
		"one of nets, none of notNets": rules("ingress", "{action: Allow, source: {nets: [10.7.0.0/16, 10.8.0.1], notNets: [10.7.1.0/24, 10.7.2.2/32]}}",
			"in tcp 10.7.0.1 > 10.1.0.2 = yes\nin tcp 10.8.0.1 > 10.1.0.2 = yes\nin tcp 10.8.0.2 > 10.1.0.2 = no\nin tcp 10.7.1.9 > 10.1.0.2 = no\nin tcp 10.7.2.2 > 10.1.0.2 = no"),
		"host bits are masked":         rules("ingress", "{action: Allow, source: {nets: [10.7.3.3/16]}}", "in tcp 10.7.0.1 > 10.1.0.2 = yes"),
		"both ends":                    rules("egress", "{action: Allow, source: {nets: [10.1.0.2]}, destination: {nets: [10.7.0.0/16]}}", "out tcp 10.1.0.2 > 10.7.0.1 = yes\nout tcp 10.1.0.3 > 10.7.0.1 = no"),
		"nets and selector both match": rules("ingress", "{action: Allow, source: {nets: [10.1.0.0/31], selector: all()}}", "in tcp 10.1.0.1 > 10.1.0.2 = yes\nin tcp 10.1.0.0 > 10.1.0.2 = no\nin tcp 10.2.0.1 > 10.1.0.2 = no"),
	})
}

func TestPorts(t *testing.T) {
	play6(t, map[string]scene{
		"numbers and ranges": rules("ingress", "{action: Allow, protocol: TCP, destination: {ports: [80, '90:92', 91, 93]}}",
			"in tcp 10.9.9.9 > 10.1.0.2@80 = yes\nin tcp 10.9.9.9 > 10.1.0.2@93 = yes\nin tcp 10.9.9.9 > 10.1.0.2@94 = no\nin udp 10.9.9.9 > 10.1.0.2@80 = no"),
		"not ports": rules("ingress", "{action: Allow, protocol: TCP, destination: {ports: ['80:90'], notPorts: [85, '0:80']}}",
			"in tcp 10.9.9.9 > 10.1.0.2@80 = no\nin tcp 10.9.9.9 > 10.1.0.2@81 = yes\nin tcp 10.9.9.9 > 10.1.0.2@85 = no\nin tcp 10.9.9.9 > 10.1.0.2@90 = yes"),
		"ports that exclude each other match nothing": rules("ingress", "{action: Allow, protocol: TCP, destination: {ports: [80], notPorts: ['0:65535']}}", "in tcp 10.9.9.9 > 10.1.0.2@80 = no"),
		"source ports": rules("ingress", "{action: Allow, protocol: TCP, source: {ports: [1000]}}", "in tcp 10.9.9.9@1000 > 10.1.0.2@80 = yes\nin tcp 10.9.9.9@80 > 10.1.0.2@1000 = no"),
		"a name is address, protocol and port": rules("ingress", "{action: Allow, destination: {ports: [web]}}",
			"in tcp 10.9.9.9 > 10.1.0.2@8080 = yes\nin udp 10.9.9.9 > 10.1.0.2@8080 = no\nin tcp 10.9.9.9 > 10.1.0.2@80 = no\nin tcp 10.9.9.9 > 10.9.0.2@8080 = no"),
		"a name without a selector is of every endpoint": rules("egress", "{action: Allow, destination: {ports: [web]}}",
			"out tcp 10.1.0.2 > 10.2.0.1@8080 = yes\nout tcp 10.1.0.2 > 10.1.0.1@8080 = yes\nout tcp 10.1.0.2 > 10.9.0.1@8080 = no"),
		"a name is of those whom the selector picks": rules("egress", "{action: Allow, destination: {ports: [web], selector: app == 'client'}}",
			"out tcp 10.1.0.2 > 10.2.0.1@8080 = no\nout tcp 10.1.0.2 > 10.1.0.1@8080 = yes\nout tcp 10.1.0.2 > 10.1.0.2@8080 = no"),
		"a name that nobody has": rules("ingress", "{action: Allow, destination: {ports: [nothing]}}", "in tcp 10.9.9.9 > 10.1.0.2@80 = no"),
		"names or numbers": rules("ingress", "{action: Allow, protocol: TCP, destination: {ports: [web, 80, dns]}}",
			"in tcp 10.9.9.9 > 10.1.0.2@80 = yes\nin tcp 10.9.9.9 > 10.1.0.2@8080 = yes\nin udp 10.9.9.9 > 10.1.0.2@53 = no"),
		"a name in any protocol that has it": rules("ingress", "{action: Allow, destination: {ports: [web, dns]}}",
			"in udp 10.9.9.9 > 10.1.0.2@53 = yes\nin tcp 10.9.9.9 > 10.1.0.2@8080 = yes\nin tcp 10.9.9.9 > 10.1.0.2@53 = no"),
		"not a name": rules("egress", "{action: Allow, destination: {notPorts: [web]}}",
			"out tcp 10.1.0.2 > 10.1.0.1@8080 = no\nout tcp 10.1.0.2 > 10.1.0.1@80 = yes\nout tcp 10.1.0.2 > 10.9.0.1@8080 = yes\nout udp 10.1.0.2 > 10.1.0.1@8080 = yes\nout gre 10.1.0.2 > 10.1.0.1 = yes"),
		"not two names, nor a number": rules("egress", "{action: Allow, protocol: UDP, destination: {notPorts: [web, dns, 54]}}",
			"out udp 10.1.0.2 > 10.1.0.1@53 = no\nout udp 10.1.0.2 > 10.9.0.1@53 = yes\nout udp 10.1.0.2 > 10.9.0.1@54 = no\nout udp 10.1.0.2 > 10.1.0.1@55 = yes\nout tcp 10.1.0.2 > 10.1.0.1@55 = no"),
		"names at both ends": rules("egress", "{action: Allow, source: {ports: [web]}, destination: {ports: [web, 80], notPorts: [81]}, protocol: TCP}",
			"out tcp 10.1.0.2@8080 > 10.1.0.1@8080 = yes\nout tcp 10.1.0.2@80 > 10.1.0.1@8080 = no\nout tcp 10.1.0.2@8080 > 10.9.0.1@80 = yes"),
		"names in the two protocols of both ends never meet": rules("egress", "{action: Allow, source: {ports: [web]}, destination: {ports: [dns]}}",
			"out tcp 10.1.0.2@8080 > 10.1.0.1@53 = no\nout udp 10.1.0.2@8080 > 10.1.0.1@53 = no"),
		"ports of hosts have names too": ruled(host("h", "app: db", "expectedIPs: [10.0.0.1], ports: [{name: web, protocol: TCP, port: 81}]")+
			policyDoc("np", "x/p", "types: [Egress], egress: [{action: Allow, destination: {ports: [web], selector: app == 'db', namespaceSelector: global()}}]"),
			"out tcp 10.1.0.2 > 10.0.0.1@81 = yes\nout tcp 10.1.0.2 > 10.0.0.1@8080 = no\nout tcp 10.1.0.2 > 10.1.0.1@8080 = no"),
	})
}

func TestServices(t *testing.T) {
	service := "\n---\nservice x/s 10.1.0.1:80/tcp 10.5.0.1:81/udp 10.5.0.1:80/tcp\n---\nservice w/s 10.6.0.1:80/tcp\n"
	with := func(direction, list, questions string) scene {
		s := rules(direction, list, questions)
		s.manifest += service
		return s
	}
	play6(t, map[string]scene{
		"destination of egress: address, protocol and port": with("egress", "{action: Allow, destination: {services: {name: s, namespace: x}}}",
			"out tcp 10.1.0.2 > 10.1.0.1@80 = yes\nout tcp 10.1.0.2 > 10.1.0.1@81 = no\nout udp 10.1.0.2 > 10.5.0.1@81 = yes\nout tcp 10.1.0.2 > 10.5.0.1@81 = no\nout tcp 10.1.0.2 > 10.6.0.1@80 = no"),
		"source of ingress: address alone": with("ingress", "{action: Allow, source: {services: {name: s, namespace: x}}}",
			"in tcp 10.1.0.1@9 > 10.1.0.2@1 = yes\nin udp 10.5.0.1 > 10.1.0.2@1 = yes\nin tcp 10.6.0.1 > 10.1.0.2@80 = no"),
		"own namespace":                with("egress", "{action: Allow, destination: {services: {name: s}}}", "out tcp 10.1.0.2 > 10.1.0.1@80 = yes\nout tcp 10.1.0.2 > 10.6.0.1@80 = no"),
		"within the rule's protocol":   with("egress", "{action: Allow, protocol: UDP, destination: {services: {name: s}}}", "out tcp 10.1.0.2 > 10.1.0.1@80 = no\nout udp 10.1.0.2 > 10.5.0.1@81 = yes"),
		"one that is not there":        with("egress", "{action: Allow, destination: {services: {name: none}}}", "out tcp 10.1.0.2 > 10.1.0.1@80 = no"),
		"with ports of the other end":  with("egress", "{action: Allow, protocol: TCP, source: {ports: [7]}, destination: {services: {name: s}}}", "out tcp 10.1.0.2@7 > 10.1.0.1@80 = yes\nout tcp 10.1.0.2@8 > 10.1.0.1@80 = no"),
		"source of ingress with ports": with("ingress", "{action: Allow, protocol: TCP, source: {services: {name: s}, ports: [7]}}", "in tcp 10.1.0.1@7 > 10.1.0.2 = yes\nin tcp 10.1.0.1@8 > 10.1.0.2 = no"),
	})
}

func TestSelectors(t *testing.T) {
	sets := set("GlobalNetworkSet", "g", "app: client", "10.3.0.0/16, 10.3.1.0/24") + set("NetworkSet", "x/n", "app: client", "10.4.0.0/16") +
		set("NetworkSet", "w/n", "app: client", "10.5.0.0/16") + host("h", "app: client", "expectedIPs: [10.0.0.1]")
	// who answers, in this order: a pod, set of x; a pod, set of w; a global set, a
	// host; a pod of x with another label; an address that nobody has.
	who := func(answers string) string {
		var b strings.Builder
		addresses := strings.Fields("10.1.0.1 10.4.0.1 10.2.0.1 10.5.0.1 10.3.1.1 10.0.0.1 10.1.0.2 10.9.9.9")
		for i, answer := range strings.Fields(answers) {
			b.WriteString("in tcp " + addresses[i] + " > 10.1.0.2 = " + answer + "\n")
		}
		return b.String()
	}
	np := func(peer, answers string) scene {
		s := rules("ingress", "{action: Allow, source: {"+peer+"}}", who(answers))
		s.manifest += sets
		return s
	}
	gnp := func(peer, answers string) scene {
		questions := strings.ReplaceAll(who(answers), "yes", "Allow GlobalNetworkPolicy//p/0")
		s := ruled(policyDoc("gnp", "p", "types: [Ingress], ingress: [{action: Allow, source: {"+peer+"}}]"), questions)
		s.manifest += sets
		return s
	}
	play6(t, map[string]scene{
		"nothing is anybody":                                            np("", "yes yes yes yes yes yes yes yes"),
		"selector is of the own namespace":                              np("selector: app == 'client'", "yes yes no no no no no no"),
		"all() is of the own namespace":                                 np("selector: all()", "yes yes no no no no yes no"),
		"notSelector alone is of the own namespace":                     np("notSelector: app == 'client'", "no no no no no no yes no"),
		"selector and notSelector":                                      np("selector: has(app), notSelector: app == 'client'", "no no no no no no yes no"),
		"namespaceSelector":                                             np("selector: app == 'client', namespaceSelector: team == 'blue'", "no no yes yes no no no no"),
		"namespaceSelector all() is any namespace":                      np("namespaceSelector: all()", "yes yes yes yes no no yes no"),
		"namespaceSelector global() is no namespace":                    np("selector: app == 'client', namespaceSelector: global()", "no no no no yes yes no no"),
		"a negated namespaceSelector is of what has no namespace too":   np("namespaceSelector: team != 'blue'", "yes yes no no yes yes yes no"),
		"accounts by name, of the own namespace":                        np("serviceAccounts: {names: [sa-client]}", "yes no no no no no no no"),
		"accounts by name, of another":                                  np("serviceAccounts: {names: [sa-client, x]}, namespaceSelector: team == 'blue'", "no no yes no no no no no"),
		"accounts by selector all() have an account":                    np("serviceAccounts: {selector: all()}", "yes no no no no no yes no"),
		"accounts, selector and notSelector":                            np("serviceAccounts: {names: [sa-client, sa-server]}, selector: has(app), notSelector: app == 'server'", "yes no no no no no no no"),
		"global: nothing is anybody":                                    gnp("", "yes yes yes yes yes yes yes yes"),
		"global: selector is of anywhere":                               gnp("selector: app == 'client'", "yes yes yes yes yes yes no no"),
		"global: all() is of anywhere, not of everybody":                gnp("selector: all()", "yes yes yes yes yes yes yes no"),
		"global: notSelector alone is everybody else, unknown ones too": gnp("notSelector: app == 'client'", "no no no no no no yes yes"),
		"global: notSelector with a namespaceSelector is not":           gnp("notSelector: app == 'client', namespaceSelector: team == 'red'", "no no no no no no yes no"),
		"global: namespaceSelector":                                     gnp("namespaceSelector: team == 'red'", "yes yes no no no no yes no"),
		"global: accounts":                                              gnp("serviceAccounts: {names: [sa-client]}", "yes no yes no no no no no"),
	})
}

func TestHosts(t *testing.T) {
	h := host("h", "role: node", "interfaceName: eth0, expectedIPs: [10.0.0.1], profiles: [hosts]") + host("all", "role: node", "interfaceName: '*'") +
		"---\nkind: Profile\nmetadata: {name: hosts}\nspec: {ingress: [{action: Allow, protocol: TCP}]}\n" + pod("x", "server", "10.1.0.2", "role: node") + namespace("x", "a: b")
	gnp := func(name, spec string) string { return policyDoc("gnp", name, "selector: role == 'node', "+spec) }
	packet := " ingress tcp 10.9.9.9 > 10.0.0.1@80 = "
	play6(t, map[string]scene{
		"without policies": {h, "h" + packet + "Allow Profile//hosts/0\nh:forward" + packet + "Allow\nh:untracked" + packet + "Pass\nh:prednat" + packet + "Pass\nall" + packet + "Deny\nall:forward" + packet + "Allow"},
		"a plain policy is not for what is forwarded": {h + gnp("p", "types: [Ingress]"), "h" + packet + "Deny default\nh:forward" + packet + "Allow\nh:untracked" + packet + "Pass"},
		"applyOnForward is for both": {h + gnp("p", "applyOnForward: true, types: [Ingress], ingress: [{action: Allow, protocol: UDP}]"),
			"h" + packet + "Deny default\nh:forward" + packet + "Deny default\nh:forward ingress udp 10.9.9.9 > 10.8.8.8 = Allow GlobalNetworkPolicy//p/0\nh:forward egress udp 10.9.9.9 > 10.8.8.8 = Allow\nx/server" + packet + "Deny default"},
		"forwarded traffic has no profiles": {h + gnp("p", "applyOnForward: true, types: [Ingress], ingress: [{action: Pass}]"),
			"h" + packet + "Allow Profile//hosts/0\nh:forward" + packet + "Allow"},
		"doNotTrack is before tracking alone, and does not end": {h + gnp("p", "applyOnForward: true, doNotTrack: true, ingress: [{action: Deny, protocol: UDP}]"),
			"h" + packet + "Allow Profile//hosts/0\nh:forward" + packet + "Allow\nh:untracked" + packet + "Pass\nh:untracked ingress udp 10.9.9.9 > 10.0.0.1 = Deny GlobalNetworkPolicy//p/0\nx/server" + packet + "Allow Profile//kns.x/0\n" +
				"all:untracked ingress udp 10.9.9.9 > 10.0.0.1 = Pass\ntold HostEndpoint all = do not apply to interfaceName \"*\""},
		"preDNAT is before translation alone, and does not end": {h + gnp("p", "applyOnForward: true, preDNAT: true, types: [Ingress], ingress: [{action: Deny, protocol: UDP}]"),
			"h" + packet + "Allow Profile//hosts/0\nh:forward" + packet + "Allow\nh:prednat" + packet + "Pass\nh:prednat ingress udp 10.9.9.9 > 10.0.0.1 = Deny GlobalNetworkPolicy//p/0\nh:prednat egress udp 10.9.9.9 > 10.0.0.1 = Pass\nall:prednat ingress udp 10.9.9.9 > 10.0.0.1 = Deny GlobalNetworkPolicy//p/0\nx/server" + packet + "Allow Profile//kns.x/0"},
		"a tier is visible where one of its policies is": {h + tierDoc("first", "order: 1") + gnp("p", "tier: first, applyOnForward: true, types: [Ingress]") + gnp("q", "ingress: [{action: Allow}], types: [Ingress]"),
			"h" + packet + "Deny first\nh:forward" + packet + "Deny first"},
		"namespaced policies are not for hosts":             {h + policyDoc("np", "x/p", "types: [Ingress]"), "h" + packet + "Allow Profile//hosts/0"},
		"a namespaceSelector excludes hosts":                {h + policyDoc("gnp", "p", "namespaceSelector: all(), types: [Ingress]"), "h" + packet + "Allow Profile//hosts/0\nx/server" + packet + "Deny default"},
		"a global policy without selector is for hosts too": {h + policyDoc("gnp", "p", "types: [Ingress]"), "h" + packet + "Deny default"},
	})
}
