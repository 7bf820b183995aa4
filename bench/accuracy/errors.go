package accuracy

import "errors"

// Reading the data set: the caller's input is at fault.
var (
	// ErrDataSet: the list or the folder cannot be used; the text says where and why.
	ErrDataSet = errors.New("accuracy: data set")
	// ErrMissing: images that the list names are not there.
	ErrMissing = errors.New("accuracy: images are missing")
)

// Measuring.
var (
	// ErrNotAcquired marks an Extractor's error that concerns one image alone (no
	// face in it, not an image): the image counts as a failure to acquire and the
	// measurement goes on. Any other error of an Extractor ends the measurement.
	ErrNotAcquired = errors.New("accuracy: no face acquired")
	// ErrNothingCompared: no comparison is left after failures to acquire.
	ErrNothingCompared = errors.New("accuracy: nothing could be compared")
	// ErrEmbedding: embeddings that cannot be compared (length, not finite).
	ErrEmbedding = errors.New("accuracy: embedding")
)
