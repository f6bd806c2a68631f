package selector

import (
	"fmt"
	"testing"
)

func TestScopes(t *testing.T) {
	tests := map[string]struct{ namespaces, accounts string }{
		"all()":             {`has(projectcalico.org/namespace)`, `has(projectcalico.org/serviceaccount)`},
		"":                  {`has(projectcalico.org/namespace)`, `has(projectcalico.org/serviceaccount)`},
		"global()":          {`!has(projectcalico.org/namespace)`, `global()`},
		"!global()":         {`has(projectcalico.org/namespace)`, `!global()`},
		"a == 'all()'":      {`pcns.a == "all()"`, `pcsa.a == "all()"`},
		"!has(a)":           {`!has(pcns.a)`, `!has(pcsa.a)`},
		"a not in {'x'}":    {`pcns.a not in {"x"}`, `pcsa.a not in {"x"}`},
		"a starts with 'x'": {`pcns.a starts with "x"`, `pcsa.a starts with "x"`},
		"all() && !(a == 'x' || b contains 'y')": {
			`(has(projectcalico.org/namespace) && !(pcns.a == "x" || pcns.b contains "y"))`,
			`(has(projectcalico.org/serviceaccount) && !(pcsa.a == "x" || pcsa.b contains "y"))`,
		},
	}
	for text, tt := range tests {
		s := parse(t, text)
		before := s.String()
		if got := s.ForNamespaces().String(); got != tt.namespaces {
			t.Errorf("%q of namespaces is %q, want %q", text, got, tt.namespaces)
		}
		if got := s.ForServiceAccounts().String(); got != tt.accounts {
			t.Errorf("%q of service accounts is %q, want %q", text, got, tt.accounts)
		}
		if s.String() != before || parse(t, text).String() != before {
			t.Errorf("%q has become %q", before, s)
		}
	}
}

// What the fields of policies and rules come to: who is picked among a pod, a
// pod under an account, a global network set and a host endpoint.
func TestFieldsOfPolicies(t *testing.T) {
	things := map[string]Map{
		"pod":     {NamespaceLabel: "prod", "app": "web", "pcns.env": "live"},
		"account": {NamespaceLabel: "test", ServiceAccountLabel: "robot", "app": "web", "pcsa.team": "red"},
		"set":     {"app": "web"},
		"host":    {},
	}
	prod, err := Equal(NamespaceLabel, "prod")
	if err != nil {
		t.Fatal(err)
	}
	robots, err := In(ServiceAccountLabel, "robot", "other")
	if err != nil {
		t.Fatal(err)
	}
	web := parse(t, "app == 'web'")
	tests := map[string]struct {
		s     *Selector
		picks string
	}{
		"selector of a namespaced policy":      {And(web, prod), "pod"},
		"selector of a global policy":          {web, "account pod set"},
		"namespaceSelector":                    {And(web, parse(t, "env == 'live'").ForNamespaces()), "pod"},
		"namespaceSelector all()":              {parse(t, "all()").ForNamespaces(), "account pod"},
		"namespaceSelector global()":           {parse(t, "global()").ForNamespaces(), "host set"},
		"serviceAccountSelector":               {parse(t, "team == 'red'").ForServiceAccounts(), "account"},
		"serviceAccountSelector all()":         {parse(t, "all()").ForServiceAccounts(), "account"},
		"serviceAccounts.names and selector":   {And(robots, parse(t, "has(team)").ForServiceAccounts()), "account"},
		"selector and notSelector":             {And(web, Not(parse(t, "has(pcns.env)"))), "account set"},
		"notSelector alone, namespaced policy": {And(prod, Not(parse(t, "app == 'db'"))), "pod"},
		"notSelector alone, global policy":     {Not(web), "host"},
	}
	for name, tt := range tests {
		var picked string
		for _, thing := range []string{"account", "host", "pod", "set"} {
			if tt.s.Evaluate(things[thing]) {
				picked += " " + thing
			}
		}
		if picked != " "+tt.picks {
			t.Errorf("%s, %s, picks%s, want %s", name, tt.s, picked, tt.picks)
		}
	}
}

func ExampleAnd() {
	pos, _ := Parse("role == 'db' || role == 'cache'")
	neg, _ := Parse("has(quarantine)")
	fmt.Println(And(pos, Not(neg)))
	// Output: ((role == "db" || role == "cache") && !has(quarantine))
}

func TestAsksGlobal(t *testing.T) {
	tests := map[string]bool{
		"":                                    false,
		"all()":                               false,
		"global()":                            true,
		"(global())":                          true,
		"!global()":                           true,
		"a == 'x' && (b == 'y' || !global())": true,
		"a == 'global()'":                     false,
		"has(global)":                         false,
		"global == 'x' || global in {}":       false,
	}
	for text, want := range tests {
		if got := parse(t, text).AsksGlobal(); got != want {
			t.Errorf("%q asks for what is global: %v, want %v", text, got, want)
		}
	}
}
