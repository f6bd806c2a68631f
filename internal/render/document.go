package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Format is how an answer is printed.
type Format string

// The formats.
const (
	Text Format = "table" // for people
	JSON Format = "json"
	YAML Format = "yaml"
)

// ParseFormat takes the word that an operator wrote.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains([]Format{Text, JSON, YAML}, f) {
		return f, nil
	}
	return "", fmt.Errorf("output format is %q, want table, json or yaml", s)
}

// Document prints a message as one JSON or YAML document, in protobuf's JSON
// mapping: lowerCamelCase names; numbers, texts and lists there even when zero or
// empty; 64-bit numbers as strings so that no reader rounds them. The same
// message gives the same bytes.
func Document(w io.Writer, f Format, m proto.Message) error {
	loose, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	return indented(w, f, loose)
}

// Value prints what encoding/json makes of a value, as one JSON or YAML document.
func Value(w io.Writer, f Format, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	return indented(w, f, doc)
}

// indented prints JSON as a document.
func indented(w io.Writer, f Format, loose []byte) error {
	var out bytes.Buffer
	// protojson puts blanks at random, so that nobody relies on them: indent anew.
	if err := json.Indent(&out, loose, "", "  "); err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	out.WriteByte('\n')
	doc := out.Bytes()
	if f == YAML {
		var err error
		if doc, err = yaml.JSONToYAML(doc); err != nil {
			return fmt.Errorf("write %s: %w", f, err)
		}
	}
	_, err := w.Write(doc)
	return err
}
