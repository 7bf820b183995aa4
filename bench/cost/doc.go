// Package cost measures what sealing and auditing cost: bulk enrolment on the
// server as it is, against servers that leave out sealing, auditing or both, and
// Verify in a scope that demands a record of every decision, against one that
// keeps none.
//
// No server has a switch for that. The servers without are built from the same
// sources, with the bodies of a few functions replaced through go build's
// -overlay (Build); they exist in a temporary folder, for as long as the
// measurement takes. So what is compared is all that the steps cost: their time,
// their memory, and their waits for the disk.
//
// The servers take turns of a second or less, and every figure is the median of the
// rounds' ratios, so that what else the machine does hits all of them. The
// client shares the cores with them: of the server's own time, the shares are larger.
package cost
