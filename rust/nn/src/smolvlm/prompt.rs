//! Instruction texts.

/// The text, ended by a newline as LeRobot's SmolVLA was trained with.
pub fn with_newline(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// System prompt, newline, text; just the text when the system prompt is empty.
pub fn with_system_prompt(system_prompt: &str, text: &str) -> String {
    if system_prompt.is_empty() { text.to_owned() } else { format!("{system_prompt}\n{text}") }
}
