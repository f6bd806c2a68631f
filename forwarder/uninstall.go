package forwarder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"margay.dev/margay/internal/hostnet/journal"
)

// Uninstall puts back every setting of the host that the journal in dir holds,
// also those that outlive a forwarder, and tells each on out.
func Uninstall(ctx context.Context, dir string, out io.Writer) error {
	j, err := journal.Open(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	report, err := j.RestoreAll(ctx)
	for _, e := range report.Restored {
		fmt.Fprintln(out, "put back:", e)
	}
	for _, e := range report.Kept {
		fmt.Fprintln(out, "left, since somebody else changed it:", e)
	}
	fmt.Fprintln(out, report)
	return errors.Join(err, j.Close())
}
