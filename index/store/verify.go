package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

// verifyTables reads every table that Badger's manifest names and checks the
// checksums of its blocks, before Badger opens them: Badger itself leaves out a
// table whose checksum is wrong, or ends the process over it, and would begin to delete and
// rewrite files. Tables that the manifest does not name are the remains of an
// interrupted compaction and Badger's to remove. The cost is one reading of the
// data, which fills the kernel's cache for the loading that follows.
func verifyTables(dir string, o badger.Options) error {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new database
	} else if err != nil {
		return err
	}
	defer f.Close()
	var manifest badger.Manifest
	err = guard(func() (err error) {
		manifest, _, err = badger.ReplayManifestFile(f, o.ExternalMagicVersion, o)
		return err
	})
	if err != nil {
		return damagedFile(f.Name(), err)
	}
	var (
		running sync.WaitGroup
		slots   = make(chan struct{}, runtime.GOMAXPROCS(0))
		mu      sync.Mutex
		errs    []error
	)
	for id, t := range manifest.Tables {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			path := table.NewFilename(id, dir)
			if err := guard(func() error { return verifyTable(path, t.Compression) }); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, damagedFile(path, err))
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func damagedFile(path string, err error) error {
	return fmt.Errorf("%w: %s: %v; restore the data directory from its copy", ErrDamaged, filepath.Base(path), err)
}

// verifyTable checks the index and all blocks of one table.
func verifyTable(path string, compression options.CompressionType) error {
	m, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	// Without a mode of its own: the blocks are checked below, and OpenTable's
	// own check dereferences nil when it finds something.
	t, err := table.OpenTable(m, table.Options{ReadOnly: true, ChkMode: options.NoVerification, Compression: compression, BlockSize: 4 << 10})
	if err != nil {
		return err // OpenTable has closed the file
	}
	defer t.Close(-1)
	return t.VerifyChecksum()
}
