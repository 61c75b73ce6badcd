"""The kit that keeps every verifier honest: the checks of `rlvr verifiers check`, and the fuzzer that goes with them.

report      what was found, and the names of the checks
check       the checks, in a real scorer
bench       verifies one at a time, many at once, in batches
trials      what a verifier is tried with: its kit, labelled cases, no-op completions
hostile     the corpus of hostile text, and the fuzzer
"""
