package reference

import "github.com/menshen-io/menshen/models"

// threshold keeps the demonstration honest at its size: a gallery of 2,000
// synthetic people with one enrolment shot each. Population 1 gave FPIR 0.0070,
// 0.0040, 0.0020 and FNIR 0.0075, 0.0095, 0.0120 at 0.40, 0.42 and 0.44.
const threshold = 0.42

const calibrationSource = "30 million comparisons of an enrolment and a gate shot of 5,500 synthetic people (bench/faces, seed 1); says nothing about real faces"

// calibration stops at 3e-7, of which that set holds nine: drawn people have
// doubles, and the tail is heavier than that of the codes' noise.
func calibration() []models.CalibrationPoint {
	return []models.CalibrationPoint{
		{FMR: 1e-2, Score: 0.148, Source: calibrationSource},
		{FMR: 1e-3, Score: 0.227, Source: calibrationSource},
		{FMR: 1e-4, Score: 0.307, Source: calibrationSource},
		{FMR: 1e-5, Score: 0.385, Source: calibrationSource},
		{FMR: 1e-6, Score: 0.454, Source: calibrationSource},
		{FMR: 3e-7, Score: 0.501, Source: calibrationSource},
	}
}
