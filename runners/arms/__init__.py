"""What an arm answers with: prompts, few-shot selection, retrieval, RAFT rows, classifier."""
