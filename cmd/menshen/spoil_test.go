package main

import (
	"bytes"
	"path/filepath"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/rogpeppe/go-internal/testscript"
)

// spoil DIR SUBJECT loses the record of a subject's first template, as damage
// on the disk would: it goes into the database of a stopped server behind the
// store's back.
func scriptSpoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: spoil data-dir subject")
	}
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(ts.MkAbs(args[0]), recordsName)).WithLogger(nil))
	ts.Check(err)
	lost := 0
	ts.Check(db.Update(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if key := it.Item().KeyCopy(nil); bytes.Contains(key, []byte(args[1]+"\x00\x00\x00\x00\x01")) {
				lost++
				if err := txn.Delete(key); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	ts.Check(db.Close())
	if lost != 1 {
		ts.Fatalf("%d records of %s were lost, want 1", lost, args[1])
	}
}
