package session

import "testing"

func TestAgree(t *testing.T) {
	tests := map[string]struct {
		client, clientMin, ours, oursMin uint32
		want                             uint32 // 0 for a refusal
	}{
		"both of one version":                  {3, 3, 3, 3, 3},
		"the client is one behind":             {2, 2, 3, 2, 2},
		"the client is one ahead":              {4, 3, 3, 2, 3},
		"the client is two behind":             {1, 1, 3, 2, 0},
		"the client is ahead and will not bow": {4, 4, 3, 2, 0},
		"the client names no version":          {0, 0, 3, 2, 0},
		"the client's oldest is its newest":    {3, 3, 4, 3, 3},
		"the client's range is upside down":    {2, 3, 3, 2, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Agree(tt.client, tt.clientMin, tt.ours, tt.oursMin)
			if got != tt.want || (err == nil) != (tt.want != 0) {
				t.Errorf("agreed on %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}
