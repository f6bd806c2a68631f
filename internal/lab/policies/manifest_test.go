package policies

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	theirs  = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: one, namespace: a}, spec: {podSelector: {}}}"
	calicos = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: one, namespace: a}, spec: {}}"
	other   = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: one, namespace: b}, spec: {}}"
	global  = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: one}, spec: {}}"
)

func all(t *testing.T, texts ...string) Manifests {
	t.Helper()
	m, err := Read([]byte(strings.Join(texts, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m Manifests) list() string {
	var names []string
	for _, one := range m {
		names = append(names, one.String()+" of "+one.APIVersion)
	}
	return strings.Join(names, ", ")
}

func TestManifestsAreToldApart(t *testing.T) {
	m := all(t, theirs, calicos, other, global)
	if len(m) != 4 {
		t.Fatalf("of four objects there are %s", m.list())
	}
	changed := strings.Replace(calicos, "spec: {}", "spec: {order: 7}", 1)
	if got := m.With(all(t, changed)); len(got) != 4 || got[1].text == m[1].text || got[0].text != m[0].text {
		t.Errorf("another version makes of them %s", got.list())
	}
	if _, err := m.Add(all(t, theirs)); err == nil || !strings.Contains(err.Error(), "NetworkPolicy a/one is there twice") {
		t.Errorf("added twice: %v", err)
	}
	b, err := m.YAML()
	if err != nil || all(t, string(b)).list() != m.list() {
		t.Errorf("printed they are\n%s\n%v", b, err)
	}
}

func TestFoldersAreRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": theirs, "b.json": `{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "x"}, "spec": {}}`, "c.txt": "no: manifest"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := ReadPath(dir); err != nil || len(m) != 2 {
		t.Errorf("there are %s, %v", m.list(), err)
	}
	for name, text := range map[string]string{"d.yml": theirs, "e.yaml": "{apiVersion: v1, kind: Nothing}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := ReadPath(dir)
	for _, want := range []string{"d.yml: NetworkPolicy a/one is there twice", "e.yaml: object 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
	if _, err := ReadPath(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no file in it ends in") {
		t.Errorf("of an empty folder: %v", err)
	}
}
