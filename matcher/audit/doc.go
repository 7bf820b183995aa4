// Package audit is the log of what was done and decided: append-only, chained by
// hashes, signed, and poor in data.
//
// # Chains
//
// Every tenant has a chain of acts, every scope one of decisions, and the platform
// one of acts. They are apart because a tenant's auditor must be able to read and
// verify the tenant's without seeing another's, and because decisions go long
// before acts do, each scope's in its own time. Each record is chained to the one before by SHA-256; the
// ends of the tenants' chains are written into the platform's, whose signed checkpoint
// so stands for all.
//
//	<dir>/platform/                 00000000000000000001.log checkpoint.json pruned.json
//	<dir>/tenants/T/acts/           likewise
//	<dir>/tenants/T/decisions/S/
//
// Records are JSON in one spelling, framed and hashed (frame.go), in segments of
// one UTC day and 16 MiB at most: they can be read in thirty years without this
// code. Retention drops whole segments; a signed statement then says where the
// chain begins.
//
// # Promises
//
// An act is on the disk when Append returns; one that may not wait for a disk is
// written late, and says so (Insist). One that became durable with its change (Draft,
// Attach) is written within a second and before anybody reads on, once, whatever
// crashes. A decision is on the disk within about 100 ms; Record never waits, and what a crash loses of that moment is lost.
// A required decision that cannot be queued or written is an error, so that the
// call fails; one that is not required is counted, and the count is
// written down. Verify finds every edit, removal, insertion, reorder and
// truncation up to the last checkpoint that the attacker could not replace, and says
// where. A log that is not as it was written does not open, except for an
// incomplete last record, which a crash leaves; cutting it off is written down.
//
// # What it does not do
//
// Who can write the files and holds no signing key can change what came after
// the last checkpoint, or put back an older state of the whole folder with its
// checkpoint: only checkpoints that were kept elsewhere expose that. Who holds the signing
// key can write any history that does not contradict those.
//
// # What stands in it
//
// No image, embedding, code, score or key: the types have no place for them. A
// subject appears as a pseudonym that changes every day and cannot be linked, by
// anybody, once the day's secret was forgotten. A match is near or
// clear and nothing finer. Who was not matched does not appear at all. Resource names
// that lead through a subject are refused.
package audit
