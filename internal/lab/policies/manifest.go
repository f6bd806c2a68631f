package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy"
)

// A Manifest is one object, as somebody wrote it and as policy is calculated from it.
type Manifest struct {
	APIVersion, Kind, Namespace, Name string
	JSON                              json.RawMessage
	Object                            metav1.Object // as policy takes it; nobody may change it

	key  policy.Key
	text string // of Object: what is equal makes no difference
}

// String is what the object is called.
func (m Manifest) String() string {
	if m.Namespace == "" {
		return m.Kind + " " + m.Name
	}
	return m.Kind + " " + m.Namespace + "/" + m.Name
}

// identify fills in what follows from the object.
func (m *Manifest) identify() (err error) {
	if m.key, err = policy.KeyOf(m.Object); err != nil {
		return err
	}
	b, err := json.Marshal(m.Object)
	m.text = string(b)
	return err
}

// Manifests are objects, each of which is there once. They are not changed: every
// method gives others.
type Manifests []Manifest

// Read reads a manifest of resources of projectcalico.org/v3, of Kubernetes
// Namespaces, ServiceAccounts, Pods with addresses and NetworkPolicies, and of
// ClusterNetworkPolicies, in YAML or JSON. It reports everything that is wrong in
// any of them; what nothing of policy follows from is wrong, too.
func Read(manifest []byte) (Manifests, error) {
	parts, err := v3.Split(manifest)
	if err != nil {
		return nil, err
	}
	var out Manifests
	var faults []error
	for i, part := range parts {
		m, err := one(part)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("object %d of the manifest%s: %w", i+1, named(m), err))
		case out.at(m.key) >= 0:
			faults = append(faults, fmt.Errorf("object %d of the manifest, %v: it is there twice: take one away", i+1, m))
		default:
			out = append(out, m)
		}
	}
	return out, errors.Join(faults...)
}

// named is what to call an object that something is wrong with, where that is known.
func named(m Manifest) string {
	if m.Kind == "" || m.Name == "" {
		return ""
	}
	return ", " + m.String()
}

// one reads one object.
func one(text []byte) (m Manifest, err error) {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct{ Namespace, Name string }
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return m, err
	}
	m = Manifest{APIVersion: head.APIVersion, Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name, JSON: text}
	if m.Object, err = object(head.TypeMeta, text); err != nil {
		return m, err
	}
	err = m.identify()
	if m.Namespace == "" {
		m.Namespace = m.key.Namespace // of a resource of Calico's that says none it is "default"
	}
	return m, err
}

// ReadPath reads the manifests of a file, or of every file of a folder whose name
// ends in .yaml, .yml or .json. It reports everything that is wrong in any of them.
func ReadPath(path string) (Manifests, error) {
	files := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		files = nil
		for _, e := range entries {
			if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s: no file in it ends in .yaml, .yml or .json", path)
		}
	}
	var out Manifests
	var faults []error
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		more, err := Read(b)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", file, err))
		}
		if out, err = out.Add(more); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", file, err))
		}
	}
	return out, errors.Join(faults...)
}

// YAML is a manifest of all of them.
func (m Manifests) YAML() ([]byte, error) {
	var out bytes.Buffer
	for i, one := range m {
		b, err := yaml.JSONToYAML(one.JSON)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

func (m Manifests) at(key policy.Key) int {
	return slices.IndexFunc(m, func(one Manifest) bool { return one.key == key })
}

// With is these and more: each in the place of the one that it is another version
// of, or behind the others.
func (m Manifests) With(more Manifests) Manifests {
	out := slices.Clone(m)
	for _, one := range more {
		if i := out.at(one.key); i >= 0 {
			out[i] = one
		} else {
			out = append(out, one)
		}
	}
	return out
}

// Add is these and more. It fails, and says all of them, if some of more are there
// already.
func (m Manifests) Add(more Manifests) (Manifests, error) {
	var faults []error
	for _, one := range more {
		if m.at(one.key) >= 0 {
			faults = append(faults, fmt.Errorf("%v is there twice: take one away", one))
		}
	}
	return m.With(more), errors.Join(faults...)
}
