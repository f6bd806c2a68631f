package v3_test

import (
	"encoding/json"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/qos"
)

func TestTextOrNumber(t *testing.T) {
	type all struct {
		Protocol *v3.Protocol `json:"protocol,omitempty"`
		Port     *v3.Port     `json:"port,omitempty"`
		DSCP     *qos.DSCP    `json:"dscp,omitempty"`
	}
	tests := map[string]struct{ in, out string }{
		"a protocol by name":                   {`{"protocol":"ICMPv6"}`, ""},
		"a protocol by number":                 {`{"protocol":132}`, ""},
		"a protocol by number as text":         {`{"protocol":"6"}`, `{"protocol":6}`},
		"a protocol that is none stays as is":  {`{"protocol":"tpc"}`, ""},
		"a protocol of more than eight bits":   {`{"protocol":256}`, "error"},
		"a protocol below zero":                {`{"protocol":-1}`, "error"},
		"a port":                               {`{"port":80}`, ""},
		"port 0":                               {`{"port":0}`, ""},
		"a port as text":                       {`{"port":"80"}`, `{"port":80}`},
		"a range":                              {`{"port":"80:90"}`, ""},
		"a range of one":                       {`{"port":"80:80"}`, `{"port":80}`},
		"a named port":                         {`{"port":"http"}`, ""},
		"a port of more than 16 bits":          {`{"port":65536}`, "error"},
		"such a port as text stays as is":      {`{"port":"65536"}`, ""},
		"a range from above to below":          {`{"port":"90:80"}`, ""},
		"a range that is none":                 {`{"port":"80:"}`, ""},
		"a number with a fraction":             {`{"port":80.5}`, "error"},
		"a number beyond all":                  {`{"port":1e999}`, "error"},
		"a code point by name":                 {`{"dscp":"AF11"}`, ""},
		"a code point by number":               {`{"dscp":46}`, ""},
		"an empty text is no protocol":         {`{"protocol":""}`, "error"},
		"an empty text is no port":             {`{"port":""}`, "error"},
		"an empty text is no code point":       {`{"dscp":""}`, "error"},
		"a list is no protocol":                {`{"protocol":[6]}`, "error"},
		"truth is no port":                     {`{"port":true}`, "error"},
		"an object is no code point":           {`{"dscp":{}}`, "error"},
		"null is a protocol that was left out": {`{"protocol":null}`, `{}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.out == "" {
				tt.out = tt.in
			}
			var v all
			if err := json.Unmarshal([]byte(tt.in), &v); err != nil {
				if tt.out != "error" {
					t.Fatal(err)
				}
				return
			}
			got, err := json.Marshal(v)
			if err != nil || string(got) != tt.out {
				t.Errorf("%s became %s (%v), want %s", tt.in, got, err, tt.out)
			}
		})
	}
}
