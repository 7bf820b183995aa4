package config

import (
	"fmt"
	"strings"
)

// suggestKey names the setting that a misspelt key most likely means, or the
// keys of a section that was given as a value.
func suggestKey(key string) string {
	var section, all []string
	for _, s := range Settings() {
		if strings.HasPrefix(s.Key, key+".") {
			section = append(section, s.Key)
		}
		all = append(all, s.Key)
	}
	if len(section) > 0 {
		return fmt.Sprintf(": it is a section that holds %s", strings.Join(section, ", "))
	}
	return didYouMean(key, all, "")
}

func suggestEnv(name string) string {
	var all []string
	for _, s := range Settings() {
		all = append(all, strings.TrimPrefix(s.Env(), EnvPrefix))
	}
	return didYouMean(strings.TrimPrefix(name, EnvPrefix), all, EnvPrefix)
}

// didYouMean names the known word that is nearest to a misspelt one, with a
// prefix put before it: at most a letter off for every three.
func didYouMean(word string, known []string, prefix string) string {
	best, at := "", len(word)/3
	for _, k := range known {
		if d := distance(word, k); d <= at {
			best, at = k, d-1
		}
	}
	if best == "" {
		return "; see \"menshen serve --print-config\" for all settings"
	}
	return fmt.Sprintf("; did you mean %s?", prefix+best)
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
